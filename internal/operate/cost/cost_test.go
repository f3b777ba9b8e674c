package cost_test

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/precast-ota/precast/internal/operate/cost"
)

func current(t testing.TB) cost.Prices {
	t.Helper()
	p, err := cost.Current()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(math.Abs(a), math.Abs(b)) }

// The sample's own estimate, of 2021: $0.0000643625 for an uncached metadata request, $0.000001 for a cached
// one. Today's table comes to the same but for DynamoDB's reads, which have become cheaper by half.
func TestSamplesOwnEstimate(t *testing.T) {
	p := current(t)
	if got := cost.ServerCall(cost.SampleServer(), p.Set("dynamodb.read", 0.25)); !near(got, 0.0000643625) {
		t.Errorf("with the price of 2021: %.13f", got)
	}
	if got := cost.ServerCall(cost.SampleServer(), p); !near(got, 0.0000643625-0.000000125) {
		t.Errorf("with today's: %.13f", got)
	}
	// Cached: nothing but CloudFront's request, as their estimate leaves the transfer out. Ours adds the two
	// Functions, and the headers' bytes as transfer.
	e, err := cost.Of(cost.Fleet{Requests: 1, HitRatio: 1, NotModified: 1, Regions: map[string]float64{"us": 1}}, cost.Catalog{}, cost.Defaults(), p)
	if err != nil {
		t.Fatal(err)
	}
	if e.Usage[0].What != "HTTPS requests, us" || !near(e.Usage[0].USD, 0.000001) {
		t.Errorf("%+v", e.Usage[0])
	}
	if extra := e.PerPoll - 0.000001; !near(extra, 2*0.0000001) || !near(e.Transfer, 0.085*600/(1<<30)) {
		t.Errorf("%.12f more", extra)
	}
}

// By hand: 100 million polls, nine of ten answered from the cache, one of a hundred with 20 MiB.
func TestByHand(t *testing.T) {
	f := cost.Fleet{Requests: 100e6, HitRatio: 0.9, NotModified: 0.99, Regions: map[string]float64{"eu": 1}}
	c := cost.Catalog{Items: 10, BinaryBytes: 10 << 30, Bundles: 100, BundleBytes: 20 << 30, AnswerBytes: 20 << 20, Changes: 2000, ChangeBundles: 50, ChangeBytes: 0}
	e, err := cost.Of(f, c, cost.Defaults(), current(t))
	if err != nil {
		t.Fatal(err)
	}
	transfer := (100e6*600 + 1e6*20*(1<<20)) / (1 << 30) // GB: 19,587
	for what, want := range map[string]float64{
		"HTTPS requests, eu": 120,
		"transfer out, eu":   10240*0.085 + (transfer-10240)*0.08,
		"Functions":          20,
		"requests":           6,
		"duration":           10e6 * 0.01 * 0.25 * 0.00005001,
		"GET":                20e6 / 1000 * 0.0004,
		"invalidations":      1000 * 0.005, // 2,000 paths, 1,000 of them free
		"KeyValueStore":      2000 * 0.001,
		"PUT":                2000 * 105.0 / 1000 * 0.005,
	} {
		for _, l := range e.Usage {
			if l.What == what { // the first: those of Lambda have the same names
				if !near(l.USD, want) {
					t.Errorf("%s: $%.6f, want $%.6f", what, l.USD, want)
				}
				break
			}
		}
	}
	if !near(e.ServerUSD, e.ServerPerPoll*100e6+e.Transfer) || e.ServerUSD < e.USD+6000 {
		t.Errorf("a server: $%.2f", e.ServerUSD)
	}
}

func fleet(t *rapid.T) cost.Fleet {
	regions := make(map[string]float64)
	var sum float64
	for _, r := range cost.Regions() {
		regions[r] = float64(rapid.IntRange(0, 10).Draw(t, r))
		sum += regions[r]
	}
	if sum == 0 {
		regions["us"], sum = 1, 1
	}
	for r := range regions {
		regions[r] /= sum
	}
	return cost.Fleet{Requests: rapid.Float64Range(0, 1e11).Draw(t, "requests"), HitRatio: rapid.Float64Range(0, 1).Draw(t, "hits"),
		NotModified: rapid.Float64Range(0, 1).Draw(t, "not modified"), Regions: regions}
}

func goods(t *rapid.T) cost.Catalog {
	number := func(name string, top float64) float64 { return rapid.Float64Range(0, top).Draw(t, name) }
	return cost.Catalog{Items: rapid.IntRange(0, 5000).Draw(t, "items"), BinaryBytes: number("binaries", 1e13), Bundles: rapid.IntRange(0, 1e5).Draw(t, "bundles"),
		BundleBytes: number("bundle bytes", 1e13), AnswerBytes: number("answer", 1e9), Changes: number("changes", 1e5), ChangeBundles: number("change bundles", 1e4), ChangeBytes: number("change bytes", 1e11)}
}

func estimate(t *rapid.T, p cost.Prices, f cost.Fleet, c cost.Catalog, a cost.Assumptions) float64 {
	e, err := cost.Of(f, c, a, p)
	if err != nil {
		t.Fatal(err)
	}
	if math.IsNaN(e.USD) || e.USD < 0 {
		t.Fatalf("$%v", e.USD)
	}
	return e.USD
}

// More of anything never costs less, and more hits never cost more.
func TestMonotone(t *testing.T) {
	p := current(t)
	rapid.Check(t, func(t *rapid.T) {
		f, c, a := fleet(t), goods(t), cost.Defaults()
		a.FreeTier = rapid.Bool().Draw(t, "free tier")
		base := estimate(t, p, f, c, a)
		slack := 1e-9 * (1 + base)
		more := f
		more.Requests += rapid.Float64Range(0, 1e11).Draw(t, "more requests")
		if got := estimate(t, p, more, c, a); got < base-slack {
			t.Errorf("more requests: $%v, not $%v", got, base)
		}
		hits := f
		hits.HitRatio += (1 - f.HitRatio) * rapid.Float64Range(0, 1).Draw(t, "more hits")
		if got := estimate(t, p, hits, c, a); got > base+slack {
			t.Errorf("more hits: $%v, not $%v", got, base)
		}
		bigger := c
		bigger.Changes += 10
		bigger.AnswerBytes *= 2
		if got := estimate(t, p, f, bigger, a); got < base-slack {
			t.Errorf("more changes and bytes: $%v, not $%v", got, base)
		}
		free := a
		free.FreeTier = true
		if got := estimate(t, p, f, c, free); got > base+slack {
			t.Errorf("with the free tier: $%v, not $%v", got, base)
		}
	})
}

// No fleet and no changes: what is used is storage, and nothing else; what stands there to watch over it is
// the same as with a fleet.
func TestZeroFleetCostsStorage(t *testing.T) {
	p := current(t)
	rapid.Check(t, func(t *rapid.T) {
		f, c := fleet(t), goods(t)
		full, err := cost.Of(f, c, cost.Defaults(), p)
		if err != nil {
			t.Fatal(err)
		}
		f.Requests, c.Changes = 0, 0
		e, err := cost.Of(f, c, cost.Defaults(), p)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range e.Usage {
			if (l.USD != 0 || l.Quantity != 0) && l.What != "storage" {
				t.Errorf("%+v", l)
			}
		}
		for i, l := range e.Standing {
			if l != full.Standing[i] {
				t.Errorf("%+v is not %+v", l, full.Standing[i])
			}
		}
	})
}

func TestRefused(t *testing.T) {
	us := map[string]float64{"us": 1}
	for want, f := range map[string]cost.Fleet{
		"hit ratio":        {HitRatio: 1.1, Regions: us},
		"nothing new":      {NotModified: -1, Regions: us},
		"requests":         {Requests: math.NaN(), Regions: us},
		"come to 0.5":      {Regions: map[string]float64{"us": 0.5}},
		"the regions are":  {Regions: map[string]float64{"mars": 1}},
		"shares are 0 or ": {Regions: map[string]float64{"us": 2, "eu": -1}},
	} {
		if _, err := cost.Of(f, cost.Catalog{}, cost.Defaults(), current(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	for _, text := range []string{"", "{}", `{"prices": [{"key": "s3.get"}]}`, `{"price": 1}`} {
		if _, err := cost.Read(strings.NewReader(text)); err == nil {
			t.Errorf("%s was read", text)
		}
	}
}

// Every price says where it is from, and which ones nobody has found there.
func TestPricesHaveSources(t *testing.T) {
	p := current(t)
	for _, e := range p.Prices {
		if !strings.HasPrefix(e.Source, "https://") {
			t.Errorf("%s: source %q", e.Key, e.Source)
		}
	}
	if len(p.Date) != len("2026-11-24") {
		t.Errorf("date %q", p.Date)
	}
}
