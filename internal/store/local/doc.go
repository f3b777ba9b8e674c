// Package local keeps everything in one data folder:
//
//	precast.db        catalog, change log, queue and ledger (bbolt); locked by its one user
//	objects/<key>     the objects, as plain files
//	meta/<key>        size, checksum and metadata of each object, as JSON
//	locks/            what writers of objects hold, so that several processes may write at once
//	tmp/              files being written
//
// Open takes the folder for one process; OpenObjects gives any number of processes the objects only.
// It needs a Unix system with flock, and one file system under the whole folder. On Windows opening a folder
// fails with errors.ErrUnsupported.
package local
