// Package local keeps everything in one data folder:
//
//	precast.db        catalog, change log, queue and ledger (bbolt); locked by its one user
//	objects/<key>     the objects, as plain files
//	meta/<key>        size, checksum and metadata of each object, as JSON
//	locks/            lock files for writers of objects, so that several processes may write at once
//	tmp/              files being written
//
// Open locks the folder for one process. OpenObjects opens the objects alone, and any number of processes may do so.
// The driver needs a Unix system with flock, and the whole folder on one file system. On Windows opening a
// folder fails with errors.ErrUnsupported.
//
// docs/drivers.md is the guide to writing a driver.
package local
