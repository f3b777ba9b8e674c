package limits

import (
	"container/list"
	"context"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Listen bounds how many connections of a listener are open. One that comes when there are max of them is let in,
// and another is closed: if more than half of them are silent (no request of theirs is being answered), the one that
// has been silent for longest, else the one whose answer has made no progress for longest. So clients that hold
// connections compete with each other, and one that asks and reads is answered.
func Listen(l net.Listener, max int, log *slog.Logger) net.Listener {
	return &listener{Listener: l, max: max, log: log}
}

type listener struct {
	net.Listener
	max int
	log *slog.Logger

	mu        sync.Mutex
	silent    list.List // of *conn, the one that has not changed for longest first
	answering list.List
	said      time.Time // when the log was told last
}

func (l *listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, ok := accepted.(*net.TCPConn)
	if !ok {
		return accepted, nil
	}
	boundUnsent(tcp)
	c := &conn{TCPConn: tcp, of: l}
	if closing := l.admit(c); closing != nil {
		_ = closing.SetLinger(0) // what it has not read is not kept for it
		closing.Close()
	}
	return c, nil
}

// admit notes a connection and returns the one to close for it, if any.
func (l *listener) admit(c *conn) (closing *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.in = &l.silent
	c.at = l.silent.PushBack(c)
	if l.silent.Len()+l.answering.Len() <= l.max {
		return nil
	}
	from := &l.answering
	if l.silent.Len() > max(l.max/2, 1) || from.Len() == 0 {
		from = &l.silent
	}
	if now := time.Now(); now.Sub(l.said) > time.Minute {
		l.said = now
		l.log.WarnContext(context.Background(), "too many connections: the slowest are closed", "address", l.Addr().String(), "limit", l.max)
	}
	return from.Front().Value.(*conn)
}

// conn embeds the TCP connection, so that sendfile finds it.
type conn struct {
	*net.TCPConn
	of *listener
	in *list.List // nil once it is closed
	at *list.Element
}

func (c *conn) Close() error {
	c.of.mu.Lock()
	if c.in != nil {
		c.in.Remove(c.at)
		c.in = nil
	}
	c.of.mu.Unlock()
	return c.TCPConn.Close()
}

// answers notes whether a request of this connection is being answered. A connection that is not of a listener with a
// limit is nil, here and in progress.
func (c *conn) answers(yes bool) {
	if c == nil {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.in == nil {
		return
	}
	c.in.Remove(c.at)
	if c.in = &c.of.silent; yes {
		c.in = &c.of.answering
	}
	c.at = c.in.PushBack(c)
}

func (c *conn) progress() {
	if c == nil {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.in != nil {
		c.in.MoveToBack(c.at)
	}
}
