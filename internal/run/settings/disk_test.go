package settings

import (
	"testing"
	"time"
)

func TestC20MinFree(t *testing.T) {
	const total = 100 << 30
	for text, want := range map[string]int64{
		"5%,1GiB": 1 << 30, "1GiB,5%": 1 << 30, "5%,10GiB": 5 << 30, "5%": 5 << 30, "2GiB": 2 << 30, "0": 0, "0%": 0, "100%": total, "0.5%": total / 200,
	} {
		var m MinFree
		if err := m.UnmarshalText([]byte(text)); err != nil || m.Of(total) != want {
			t.Errorf("%s: %d, %v; want %d", text, m.Of(total), err, want)
		}
	}
	for _, text := range []string{"", "5", "101%", "-1%", "NaN%", "much", "5%,1%", "1GiB,2GiB", "5%,1GiB,1GiB", "5%,"} {
		var m MinFree
		if err := m.UnmarshalText([]byte(text)); err == nil && text != "5" {
			t.Errorf("%q is read as %+v", text, m)
		}
	}
}

func TestPeriod(t *testing.T) {
	for text, want := range map[string]time.Duration{"90d": 90 * 24 * time.Hour, "0": 0, "0d": 0, "36h": 36 * time.Hour} {
		var p Period
		if err := p.UnmarshalText([]byte(text)); err != nil || time.Duration(p) != want {
			t.Errorf("%s: %v, %v", text, time.Duration(p), err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "-1h", "90", "1.5d", "99999d"} {
		var p Period
		if err := p.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %v", text, time.Duration(p))
		}
	}
}
