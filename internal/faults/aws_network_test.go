//go:build aws

package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// network is a toxiproxy before a cloud.
type network struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
	seen  map[string]int
}

func newNetwork(t *testing.T, c *cloud) *network {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := toxiproxy.NewProxy(server, "cloud", "127.0.0.1:0", strings.TrimPrefix(c.url, "http://"))
	must(t, p.Start())
	t.Cleanup(p.Stop)
	return &network{t, p, make(map[string]int)}
}

func (n *network) url() string { return "http://" + n.proxy.Listen }

// toxic is a fault as toxiproxy's API has it.
type toxic struct {
	Name       string         `json:"name"`
	Type       string         `json:"type"`
	Stream     string         `json:"stream"`
	Toxicity   float64        `json:"toxicity"` // share of the connections
	Attributes map[string]int `json:"attributes"`
}

// faults of a network, each for its share of connections.
func networkFaults() []toxic {
	return []toxic{
		{"late answers", "latency", "downstream", 1, map[string]int{"latency": 150, "jitter": 140}},
		{"late requests", "latency", "upstream", 0.5, map[string]int{"latency": 400, "jitter": 300}},
		{"resets", "reset_peer", "downstream", 0.5, map[string]int{"timeout": 20}},
		{"resets of requests", "reset_peer", "upstream", 0.3, map[string]int{"timeout": 5}},
		{"answers vanish", "timeout", "downstream", 0.5, map[string]int{"timeout": 1500}},
		{"requests vanish", "timeout", "upstream", 0.5, map[string]int{"timeout": 0}},
		{"slices", "slicer", "downstream", 1, map[string]int{"average_size": 60, "size_variation": 30, "delay": 200}},
		{"a thin line", "bandwidth", "downstream", 1, map[string]int{"rate": 20}},
		{"a thin line up", "bandwidth", "upstream", 1, map[string]int{"rate": 20}},
		{"broken off", "limit_data", "downstream", 0.5, map[string]int{"bytes": 900}},
	}
}

// during adds a fault for a while.
func (n *network) during(ctx context.Context, x toxic, while time.Duration) {
	n.t.Helper()
	data, err := json.Marshal(x)
	must(n.t, err)
	_, err = n.proxy.Toxics.AddToxicJson(strings.NewReader(string(data)))
	must(n.t, err)
	n.seen[x.Name]++
	pause(ctx, while)
	must(n.t, n.proxy.Toxics.RemoveToxic(ctx, x.Name))
}

// away takes the whole network down for a while.
func (n *network) away(ctx context.Context, while time.Duration) {
	n.t.Helper()
	listen := n.proxy.Listen
	n.proxy.Stop()
	n.seen["down"]++
	pause(ctx, while)
	n.proxy.Listen = listen // the same port
	must(n.t, n.proxy.Start())
}

// Everything that can be wrong with a network, in a random order, while the catalog changes.
func TestNetworkFaultsAWS(t *testing.T) {
	describe(t, "AWS", "the network between pipeline and S3, DynamoDB, its streams and SQS: latency and jitter, resets, requests and answers that vanish, 20 KB/s, slices of 60 bytes, connections that break off after 900 bytes, down for seconds and once for 35 s",
		"nothing incomplete is published; devices get right answers, broken downloads or 503; no dead letter, no item rejected; afterwards all is built")
	c := newCloud(t)
	n := newNetwork(t, c)
	const seed = 3
	t.Logf("seed %d", seed)
	w := c.world(t, n.url(), nil)
	changes := 0
	w.drive(seed, 0, func(ctx context.Context, r *rand.Rand) {
		pause(ctx, 2*time.Second)
		faults := networkFaults()
		r.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		for i, x := range faults {
			changes++
			w.step(r, changes)
			n.during(ctx, x, time.Duration(2500+r.IntN(2000))*time.Millisecond)
			if i%3 == 0 {
				n.away(ctx, time.Duration(500+r.IntN(1500))*time.Millisecond)
			}
			w.complete()
		}
		// Longer than it takes to give a job up.
		changes++
		w.step(r, changes)
		n.away(ctx, 35*time.Second)
		w.complete()
	})
	counted(t, "%d kinds of faults; %s", len(n.seen), w.told())
	t.Log(fmt.Sprint(n.seen))
}
