package cost

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
)

//go:embed prices.json
var table string

// Price is what something costs.
type Price struct {
	Key   string  `json:"key"`
	Unit  string  `json:"unit"`
	Per   float64 `json:"per"` // so many units cost USD
	USD   float64 `json:"usd"`
	Tiers []Tier  `json:"tiers,omitempty"` // in place of USD
	Free  float64 `json:"free,omitempty"`  // units of a month in the free tier
	// Always: the free tier never ends.
	Always bool   `json:"always,omitempty"`
	Source string `json:"source"`
	Found  string `json:"found"` // where its value was read
	Note   string `json:"note,omitempty"`
}

// Tier is a price up to an amount of units in a month.
type Tier struct {
	UpTo float64 `json:"upTo,omitempty"` // 0: without end
	USD  float64 `json:"usd"`
}

// Prices is a table of prices.
type Prices struct {
	Date     string  `json:"date"`
	Currency string  `json:"currency"`
	Region   string  `json:"region"`
	About    string  `json:"about"`
	Prices   []Price `json:"prices"`
}

// Current is the table that comes with the program, prices.json.
func Current() (Prices, error) { return Read(strings.NewReader(table)) }

// Read reads a table.
func Read(r io.Reader) (Prices, error) {
	var p Prices
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return p, fmt.Errorf("read prices: %w", err)
	}
	seen := make(map[string]bool)
	for _, e := range p.Prices {
		if seen[e.Key] || e.Per <= 0 || e.Source == "" || e.Found == "" || e.USD < 0 || (e.USD == 0) == (len(e.Tiers) == 0) {
			return p, fmt.Errorf("read prices: %q: it is there twice, or something is missing", e.Key)
		}
		seen[e.Key] = true
	}
	for _, key := range keys() {
		if !seen[key] {
			return p, fmt.Errorf("read prices: there is no %s", key)
		}
	}
	return p, nil
}

// keys are the prices that an estimate looks up.
func keys() []string {
	all := []string{
		"cloudfront.function", "cloudfront.invalidation", "cloudfront.keyvaluestore", "edge.request", "edge.duration", "s3.storage", "s3.put", "s3.get",
		"dynamodb.write", "dynamodb.read", "dynamodb.storage", "sqs.request", "lambda.request", "lambda.duration",
		"logs.ingestion", "cloudwatch.metric", "cloudwatch.alarm", "cloudwatch.dashboard",
	}
	for _, r := range Regions() {
		all = append(all, "cloudfront.request."+r, "cloudfront.transfer."+r)
	}
	return all
}

// Regions are CloudFront's classes of regions, each with prices of its own.
func Regions() []string { return []string{"us", "eu", "me", "sa", "jp", "au", "ap", "in"} }

func (p Prices) find(key string) Price {
	for _, e := range p.Prices {
		if e.Key == key {
			return e
		}
	}
	return Price{Key: key, Per: 1, USD: math.NaN()} // Read has looked for all of them
}

// Set returns the table with another price.
func (p Prices) Set(key string, usd float64) Prices {
	q := p
	q.Prices = nil
	for _, e := range p.Prices {
		if e.Key == key {
			e.USD, e.Tiers = usd, nil
		}
		q.Prices = append(q.Prices, e)
	}
	return q
}

// of is what an amount of units costs in a month.
func (e Price) of(units float64, freeTier bool) float64 {
	if freeTier || e.Always {
		units = max(0, units-e.Free)
	}
	if len(e.Tiers) == 0 {
		return units / e.Per * e.USD
	}
	var usd, from float64
	for _, t := range e.Tiers {
		to := t.UpTo
		if to == 0 || to > units {
			to = units
		}
		if to > from {
			usd += (to - from) / e.Per * t.USD
			from = to
		}
	}
	return usd
}
