// Package files opens what others name by a path, and keeps temporary files and folders that do not outlive the
// process that made them.
// It may import: nothing.
package files
