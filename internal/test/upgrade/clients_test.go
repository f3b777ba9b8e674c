package upgrade

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/precast-ota/precast/client"
)

// device is a client of one program, with a folder of its own, new or left by a program.
type device struct {
	slot  string
	run   func(t *testing.T, url string) (said string) // one update, which must go well
	files []string                                     // the SHA-256 of the files that it has taken into use last
}

var sha256Hex = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// update lets the device update until nothing new comes: a floor is a step of its own.
func (d *device) update(t *testing.T, url string) {
	t.Helper()
	for range 5 {
		installed := sha256Hex.FindAllString(d.run(t, url), -1)
		if len(installed) == 0 {
			return
		}
		d.files = installed
	}
	t.Fatal("something new comes with every update")
}

// wants fails unless the device has all that the server has for it, and nothing else.
func (d *device) wants(t *testing.T, url string) {
	t.Helper()
	status, body := get(t, url+"/package?"+deviceQuery+"&slot="+d.slot, strings.Join(d.files, ","))
	if status != 304 {
		t.Errorf("a device with %q is answered %d, %.300q; want that it has everything", d.files, status, body)
	}
}

// goDevice is the client in Go of a program.
func goDevice(program, rootPEM, dir, slot string) *device {
	return &device{slot: slot, run: func(t *testing.T, url string) string {
		return command(t, dir, nil, program, url, rootPEM, dir, deviceQuery+"&slot="+slot)
	}}
}

// presentGoDevice is this program's.
func presentGoDevice(rootPEM, dir, slot string) *device {
	return &device{slot: slot, run: func(t *testing.T, url string) string {
		t.Helper()
		roots, err := os.ReadFile(rootPEM)
		if err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		c, err := client.New(client.Options{URL: url, Selection: deviceQuery + "&slot=" + slot, Roots: roots, Dir: dir, Install: func(_ context.Context, set client.Set) error {
			for _, f := range set.Files {
				data, err := os.ReadFile(f.Path)
				if err != nil {
					return err
				}
				said.WriteString(digest(data) + "\n")
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Update(t.Context()); err != nil {
			t.Fatal(err)
		}
		return said.String()
	}}
}

// shDevice is the client in sh that a script is.
func shDevice(script, rootPEM, dir, slot string) *device {
	return &device{slot: slot, run: func(t *testing.T, url string) string {
		t.Helper()
		return command(t, "", nil, "sh", script, url, deviceQuery+"&slot="+slot, rootPEM, dir, "sh", "-c", `sha256sum "$1"/* | cut -d ' ' -f 1`, "install")
	}}
}

// Clients of the earlier program and of this one, on folders that the earlier one has left and on new ones, on both sides
// of a rollout: all update from this program's server, from what the earlier one has published and from what this one does.
func TestClients(t *testing.T) {
	each(t, func(t *testing.T, f frozen) {
		program := f.build("./cmd/device")
		dir := f.installation()
		c := f.commands(dir)
		s := serve(t, c.program, filepath.Join(dir, "data"), append(c.env, signer(t, dir))...)
		rootPEM := only(t, filepath.Join(dir, "keys", "root-*.pub.pem"))
		old := filepath.Join(f.dir, "precast-device.sh")
		present := filepath.Join(root, "client", "precast-device.sh")
		devices := make(map[string]*device)
		for _, slot := range []string{"7", "9999"} { // in the rollout of os_armv8, and not in it
			for _, left := range []bool{false, true} {
				folder := func(name string) string {
					if left { // a copy of what the earlier program left
						return filepath.Join(f.installation(name), name)
					}
					return t.TempDir()
				}
				kind := " on a new folder, slot " + slot
				if left {
					kind = " on a folder of the earlier, slot " + slot
				}
				for name, d := range map[string]*device{
					"earlier go": goDevice(program, rootPEM, folder("device-go"), slot),
					"present go": presentGoDevice(rootPEM, folder("device-go"), slot),
					"earlier sh": shDevice(old, rootPEM, folder("device-sh"), slot),
					"present sh": shDevice(present, rootPEM, folder("device-sh"), slot),
				} {
					devices[name+kind] = d
				}
			}
		}
		updated := func(what string) {
			t.Helper()
			for name, d := range devices {
				t.Run(what+"/"+strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
					d.update(t, s.url)
					d.wants(t, s.url)
				})
			}
		}
		updated("published by the earlier")
		c.says(0, "unpin")
		updated("published by this one")
	})
}
