// Package admin lets commands reach a running `precast serve`: it has the data folder to itself, so
// catalog changes and builds go through it. It listens on the loopback interface, and anyone who can
// read the data folder can use it: address and token are in a file there.
package admin

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/precast-ota/precast/internal/format/catalog"
)

// Endpoint is how to reach a running server.
type Endpoint struct {
	PID     int    `json:"pid"`
	Address string `json:"address"` // host:port of the admin API
	Token   string `json:"token"`
	URL     string `json:"url"` // of the server for devices
	// Version is the server's catalog.Version. Programs before version 2 do not say it.
	Version uint64 `json:"version"`
}

const endpointFile = "serve.json"

// Listen opens a loopback listener for the admin API of a server whose devices' URL is url.
func Listen(url string) (net.Listener, Endpoint, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, Endpoint{}, fmt.Errorf("listen for the command line: %w", err)
	}
	return l, Endpoint{PID: os.Getpid(), Address: l.Addr().String(), Token: rand.Text(), URL: url, Version: catalog.Version}, nil
}

// Announce writes an endpoint into a data folder; the function returned takes it out again.
func Announce(dir string, e Endpoint) (withdraw func(), err error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("announce server: %w", err)
	}
	path := filepath.Join(dir, endpointFile)
	f, err := os.CreateTemp(dir, endpointFile+".*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("announce server: %w", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return nil, fmt.Errorf("announce server: %w", err)
	}
	return func() { os.Remove(path) }, nil
}

// ErrNoServer: no server has announced itself in the data folder.
var ErrNoServer = errors.New("no running server")

// Find reads the endpoint announced in a data folder. The server may have died since.
func Find(dir string) (Endpoint, error) {
	var e Endpoint
	data, err := os.ReadFile(filepath.Join(dir, endpointFile))
	if errors.Is(err, fs.ErrNotExist) {
		return e, fmt.Errorf("find the server of %s: %w", dir, ErrNoServer)
	}
	if err != nil {
		return e, fmt.Errorf("find the server of %s: %w", dir, err)
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return e, fmt.Errorf("find the server of %s: %w", dir, err)
	}
	if e.Version != catalog.Version {
		return e, fmt.Errorf("find the server of %s: %w", dir, mismatch(catalog.Version, max(e.Version, 1)))
	}
	return e, nil
}

// versionHeader has a command's catalog.Version. Of a command and a server of different versions, one would drop what
// the other knows.
const versionHeader = "Precast-Version"

func mismatch(command, server uint64) error {
	return fmt.Errorf("the command stores catalogs in version %d, and the running server in version %d: use the same precast for both", command, server)
}
