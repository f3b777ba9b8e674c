// Package run is the room of what runs: the pipeline, the servers, the Lambda functions, their settings.
// Here, and in the commands, drivers are chosen and connected; no other room knows which is used.
// It may import: builder, edge, internal/files, internal/format, internal/operate, internal/store, internal/trust.
package run
