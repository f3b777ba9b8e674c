package lambdas

import (
	"context"
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/precast-ota/precast/builder"
)

// Metrics writes what a builder does as CloudWatch embedded metrics: lines of the function's log that
// CloudWatch takes metrics from
// (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).
type Metrics struct {
	Out       io.Writer
	Now       func() time.Time
	Namespace string // of the metrics
	Service   string // their one dimension
	// Next is told too, after the metrics; nil: nobody.
	Next builder.Observer

	mu sync.Mutex // lines are written whole
}

var _ builder.Observer = (*Metrics)(nil)

type metric struct {
	Name string `json:"Name"`
	Unit string `json:"Unit"`
}

func (m *Metrics) emit(values map[string]float64, units map[string]string, fields map[string]any) {
	var metrics []metric
	line := map[string]any{"service": m.Service}
	for _, name := range []string{"ChangeToServableSeconds", "BundlesPlanned", "ObjectsWritten", "BytesWritten", "PiecesMended", "ItemsRejected", "PlansHeldBack", "Publishes",
		"JobsWaiting", "JobsInFlight", "DeadLetters"} {
		if v, ok := values[name]; ok {
			metrics = append(metrics, metric{name, units[name]})
			line[name] = v
		}
	}
	for k, v := range fields {
		line[k] = v
	}
	line["_aws"] = map[string]any{
		"Timestamp": m.Now().UnixMilli(),
		"CloudWatchMetrics": []any{map[string]any{
			"Namespace": m.Namespace, "Dimensions": [][]string{{"service"}}, "Metrics": metrics,
		}},
	}
	data, err := json.Marshal(line)
	if err != nil { // numbers and strings: cannot be
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = m.Out.Write(append(data, '\n')) // a log that cannot be written has nowhere to say so
}

// Jobs says how many jobs there are, and how many were given up.
func (m *Metrics) Jobs(waiting, inFlight, dead int) {
	m.emit(map[string]float64{"JobsWaiting": float64(waiting), "JobsInFlight": float64(inFlight), "DeadLetters": float64(dead)},
		map[string]string{"JobsWaiting": "Count", "JobsInFlight": "Count", "DeadLetters": "Count"}, nil)
}

// Planned implements builder.Observer.
func (m *Metrics) Planned(ctx context.Context, r builder.Report) {
	held := 0.0
	if r.HeldBack != "" {
		held = 1
	}
	m.emit(map[string]float64{"BundlesPlanned": float64(r.Build.Bundles), "ItemsRejected": float64(len(r.Rejected)), "PlansHeldBack": held},
		map[string]string{"BundlesPlanned": "Count", "ItemsRejected": "Count", "PlansHeldBack": "Count"}, map[string]any{"sequence": r.Sequence})
	if m.Next != nil {
		m.Next.Planned(ctx, r)
	}
}

// Stored implements builder.Observer.
func (m *Metrics) Stored(ctx context.Context, s builder.Stored) {
	if !s.Existed {
		values := map[string]float64{"ObjectsWritten": 1, "BytesWritten": float64(s.Size)}
		if s.Mended {
			values["PiecesMended"] = 1
		}
		m.emit(values, map[string]string{"ObjectsWritten": "Count", "BytesWritten": "Bytes", "PiecesMended": "Count"}, map[string]any{"key": s.Key})
	}
	if m.Next != nil {
		m.Next.Stored(ctx, s)
	}
}

// Rejected implements builder.Observer.
func (m *Metrics) Rejected(ctx context.Context, r builder.Rejection) {
	if m.Next != nil {
		m.Next.Rejected(ctx, r)
	}
}

// Published implements builder.Observer.
func (m *Metrics) Published(ctx context.Context, p builder.Published) {
	values := map[string]float64{"Publishes": 1}
	if !p.Since.IsZero() && p.Changed {
		values["ChangeToServableSeconds"] = max(0, m.Now().Sub(p.Since).Seconds())
	}
	m.emit(values, map[string]string{"Publishes": "Count", "ChangeToServableSeconds": "Seconds"},
		map[string]any{"generation": p.Generation, "sequence": p.Sequence})
	if m.Next != nil {
		m.Next.Published(ctx, p)
	}
}
