// Package operate is the room of an operator's rules: release, go back, compare, explain, check, collect, count the cost.
// Commands and servers call these rules and add none of their own.
// It may import: builder, edge, internal/files, internal/format, internal/trust.
package operate
