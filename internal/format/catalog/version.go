package catalog

import "fmt"

// Version is the version of what stores a catalog: a data folder, or the tables on AWS. A release that stores
// something that an earlier program would drop or misread raises it, once. A program refuses to read or change what
// is stored in a later version, and takes up an earlier one by itself. docs/formats.md lists the versions.
const Version = 2

// VersionError: the catalog is stored in a version that this program does not know.
type VersionError struct{ Found uint64 }

func (e VersionError) Error() string {
	if e.Found == 0 {
		return "the catalog is stored in version 0, which no precast writes"
	}
	return fmt.Sprintf("the catalog is stored in version %d, and this program knows versions up to %d: a newer precast is needed", e.Found, Version)
}

// CheckVersion fails with a VersionError unless this program can read and change what is stored in a version.
func CheckVersion(found uint64) error {
	if found == 0 || found > Version {
		return VersionError{found}
	}
	return nil
}
