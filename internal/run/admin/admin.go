// Package admin lets commands reach a running `precast serve`: it has the data folder to itself, so
// catalog changes and builds go through it. On this machine it listens on the loopback interface, and anyone who can
// read the data folder can use it: address, certificate and token are in a file there. For other machines it listens
// on an address of its own, and knows people by their tokens.
package admin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

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
	// Certificate is the server's, in PEM. Its key has never left the server's memory: who answers with it at the
	// address wrote this file. A stranger on the port of a dead server is found out before anything is sent.
	Certificate string `json:"certificate"`
}

const endpointFile = "serve.json"

// Listen opens a loopback listener for the admin API of a server whose devices' URL is url, and makes the TLS
// configuration that proves it.
func Listen(url string) (net.Listener, *tls.Config, Endpoint, error) {
	cert, text, err := selfMade()
	if err != nil {
		return nil, nil, Endpoint{}, fmt.Errorf("listen for the command line: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, Endpoint{}, fmt.Errorf("listen for the command line: %w", err)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{cert}}
	return l, cfg, Endpoint{
		PID: os.Getpid(), Address: l.Addr().String(), Token: rand.Text(), URL: url, Version: catalog.Version, Certificate: text,
	}, nil
}

// serverName is in the certificate of a server that commands find by its data folder.
const serverName = "precast.invalid"

// selfMade makes a key and a certificate for it. It does not expire: it ends with the server.
func selfMade() (tls.Certificate, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{serverName},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, 4.1.2.5
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(text), nil
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
