package limits

const (
	maxDevices = 10_000
	maxAdmin   = 256
	// ownFiles is what the process needs besides: the database, listeners, builds.
	ownFiles = 64
)

// Connections divides the files that this process may have open: an answer needs a connection and a file of what it
// sends. Those of commands, probes and metrics are apart, so that devices cannot use them up.
func Connections() (devices, admin int) {
	left := int(min(openFiles(), 1<<20)) - ownFiles
	admin = min(max(left/8, 4), maxAdmin)
	devices = min(max((left-2*admin)/2, 16), maxDevices)
	return devices, admin
}
