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

// devices are clients of the earlier program and of this one, on folders that the earlier one has left and on new ones,
// on both sides of a rollout.
func (f frozen) devices(installation string) map[string]*device {
	f.t.Helper()
	program := f.build("./cmd/device")
	rootPEM := only(f.t, filepath.Join(installation, "keys", "root-*.pub.pem"))
	script, present := filepath.Join(f.dir, "precast-device.sh"), filepath.Join(root, "client", "precast-device.sh")
	devices := make(map[string]*device)
	for _, slot := range []string{"7", "9999"} { // in the rollout of os_armv8, and not in it
		for _, left := range []bool{false, true} {
			folder, kind := func(string) string { return f.t.TempDir() }, "-on-a-new-folder-slot-"+slot
			if left { // a copy of what the earlier program left
				folder = func(name string) string { return filepath.Join(f.installation(name), name) }
				kind = "-on-an-earlier-folder-slot-" + slot
			}
			devices["earlier-go"+kind] = goDevice(program, rootPEM, folder("device-go"), slot)
			devices["present-go"+kind] = presentGoDevice(rootPEM, folder("device-go"), slot)
			devices["earlier-sh"+kind] = shDevice(script, rootPEM, folder("device-sh"), slot)
			devices["present-sh"+kind] = shDevice(present, rootPEM, folder("device-sh"), slot)
		}
	}
	return devices
}

// updated lets devices update.
func updated(t *testing.T, what string, devices map[string]*device, url string) {
	t.Helper()
	for name, d := range devices {
		t.Run(what+"/"+name, func(t *testing.T) {
			d.update(t, url)
			d.wants(t, url)
		})
	}
}

// All clients update from this program's server, from what the earlier one has published and from what this one does.
func TestClients(t *testing.T) {
	each(t, func(t *testing.T, f frozen) {
		dir := f.installation()
		c := f.commands(dir)
		s := serve(t, c.program, filepath.Join(dir, "data"), append(c.env, signer(t, dir))...)
		devices := f.devices(dir)
		updated(t, "published-by-the-earlier", devices, s.url)
		c.says(0, "unpin")
		updated(t, "published-by-this-one", devices, s.url)
	})
}
