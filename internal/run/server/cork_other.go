//go:build !linux

package server

import (
	"context"
	"net"
	"net/http"
)

func rememberConn(ctx context.Context, _ net.Conn) context.Context { return ctx }

func cork(*http.Request) (uncork func()) { return func() {} }
