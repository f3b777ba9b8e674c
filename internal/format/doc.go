// Package format is the room of what bytes mean: bundles, catalogs, the index, object names, manifests.
// Nothing in it opens a file or a connection.
// It may import: edge.
package format
