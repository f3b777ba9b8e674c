package client_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/precast-ota/precast/client"
)

// A device installs what the server has for it, and asks again later.
func Example() {
	// A device's maker gives it the server's address and a root key. Here the server is in this process.
	serverURL, rootPEM, stop := serveSample()
	defer stop()

	dir, err := os.MkdirTemp("", "device-*") // a real device keeps its folder
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	c, err := client.New(client.Options{
		URL:       serverURL,
		Selection: "cpuArch=armv8&attrGamer=prod",
		Roots:     rootPEM,
		Dir:       dir,
		// Install puts verified files where the device runs them.
		Install: func(_ context.Context, set client.Set) error {
			for _, f := range set.Files {
				fmt.Printf("install %s, version %s, %d bytes\n", f.App, f.Version, f.Size)
			}
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		result, err := c.Update(context.Background()) // a *client.Refusal says what was not believed
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("generation %d, changed: %t\n", result.Generation, result.Changed)
	}
	// Output:
	// install game+level é, version 1.1, 40000 bytes
	// install os_armv8, version 1.1, 40000 bytes
	// install scoreboard, version 1.1, 40000 bytes
	// generation 1, changed: true
	// generation 1, changed: false
}
