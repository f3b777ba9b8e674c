package server

import (
	"net/http"
	"syscall"

	"github.com/precast-ota/precast/internal/run/limits"
)

// cork has the kernel send full segments only until the function returned is called, as nginx's
// tcp_nopush does (tcp(7), TCP_CORK). Go's sockets push each piece of a sendfile out at once:
// measured, a fifth of the throughput of a large file on loopback.
func cork(r *http.Request) (uncork func()) {
	conn := limits.Conn(r.Context())
	if conn == nil {
		return func() {}
	}
	set := func(on int) {
		raw, err := conn.SyscallConn()
		if err != nil {
			return // the connection has gone
		}
		// What cannot be corked is sent all the same.
		_ = raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_CORK, on) })
	}
	set(1)
	return func() { set(0) }
}
