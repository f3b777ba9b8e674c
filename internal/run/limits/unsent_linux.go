package limits

import (
	"net"
	"syscall"
)

// tcpNotSentLowat is TCP_NOTSENT_LOWAT, tcp(7).
const tcpNotSentLowat = 25

// boundUnsent has the kernel take no more of an answer than a step that it has not sent yet: what it has taken counts
// as progress, and is memory that a client can hold. How much is in flight is not bounded.
func boundUnsent(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return // it has gone
	}
	// Without it a client that stops reading is noticed later.
	_ = raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, step) })
}
