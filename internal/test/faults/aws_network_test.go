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

	"github.com/precast-ota/precast/builder"
)

// network is a toxiproxy before a cloud, on two lines: one to the queue, one to everything else.
type network struct {
	t            *testing.T
	queue, other *toxiproxy.Proxy
	seen         map[string]int
}

func newNetwork(t *testing.T, c *cloud) *network {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	line := func(name string) *toxiproxy.Proxy {
		p := toxiproxy.NewProxy(server, name, "127.0.0.1:0", strings.TrimPrefix(c.url, "http://"))
		must(t, p.Start())
		t.Cleanup(p.Stop)
		return p
	}
	return &network{t, line("queue"), line("other"), make(map[string]int)}
}

// world is a pipeline behind the network.
func (n *network) world(c *cloud) *world {
	n.t.Helper()
	w := c.world(n.t, "http://"+n.other.Listen, nil)
	queue := c.drivers(n.t, "http://"+n.queue.Listen, nil)
	w.drivers.Queue, w.drivers.DeadLetters = queue.Queue, queue.DeadLetters
	return w
}

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

// during adds a fault to both lines for a while.
func (n *network) during(ctx context.Context, x toxic, while time.Duration) {
	n.t.Helper()
	data, err := json.Marshal(x)
	must(n.t, err)
	for _, line := range []*toxiproxy.Proxy{n.queue, n.other} {
		_, err = line.Toxics.AddToxicJson(strings.NewReader(string(data)))
		must(n.t, err)
	}
	n.seen[x.Name]++
	pause(ctx, while)
	for _, line := range []*toxiproxy.Proxy{n.queue, n.other} {
		must(n.t, line.Toxics.RemoveToxic(ctx, x.Name))
	}
}

// away takes lines down for a while.
func (n *network) away(ctx context.Context, while time.Duration, lines ...*toxiproxy.Proxy) {
	n.t.Helper()
	for _, line := range lines {
		listen := line.Listen
		line.Stop()
		defer func() {
			line.Listen = listen // the same port
			must(n.t, line.Start())
		}()
	}
	n.seen[fmt.Sprint("down: ", len(lines))]++
	pause(ctx, while)
}

// Everything that can be wrong with a network, in a random order, while the catalog changes.
func TestNetworkFaultsAWS(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	n := newNetwork(t, c)
	const seed = 3
	t.Logf("seed %d", seed)
	w := n.world(c)
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
				n.away(ctx, time.Duration(500+r.IntN(1500))*time.Millisecond, n.queue, n.other)
			}
			w.complete()
		}
		// All but the queue is out of reach, which gives a job again and again: longer than it takes to give it up.
		changes++
		w.step(r, changes)
		_, err := builder.RequestPlan(ctx, w.base.Ledger, w.base.Queue, builder.Request{})
		must(t, err)
		n.away(ctx, 45*time.Second, n.other)
		w.complete()
	})
	t.Logf("%s; %v", w.told(), n.seen)
	counted(t, "%d kinds of faults, %d changes", len(n.seen), changes)
}
