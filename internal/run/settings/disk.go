package settings

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Disk are the settings of a data folder's file system: of precast serve, and of the commands that build.
type Disk struct {
	MinFree MinFree `help:"Pause builds while less than this is free on the disk: a size, a share such as 5%, or both; then the smaller one counts. 0: never." env:"PRECAST_MIN_FREE" default:"5%,1GiB"`
}

// MinFree is how much of a file system is left free.
type MinFree struct {
	Bytes   Size
	Percent float64
	both    bool
}

// UnmarshalText reads a size, a share, or both.
func (m *MinFree) UnmarshalText(text []byte) error {
	parts := strings.Split(string(text), ",")
	read := MinFree{both: len(parts) == 2}
	sizes := 0
	for _, part := range parts {
		share, ok := strings.CutSuffix(part, "%")
		if !ok {
			sizes++
			if err := read.Bytes.UnmarshalText([]byte(part)); err != nil {
				return err
			}
			continue
		}
		n, err := strconv.ParseFloat(share, 64)
		if err != nil || !(n >= 0 && n <= 100) {
			return fmt.Errorf("%q is not a share: write 5%%", part)
		}
		read.Percent = n
	}
	if len(parts) > 2 || read.both && sizes != 1 {
		return fmt.Errorf("%q is not a size and a share: write 5%%,1GiB", text)
	}
	*m = read
	return nil
}

// Of is how many bytes of a file system of so many are left free.
func (m MinFree) Of(total int64) int64 {
	share := int64(m.Percent / 100 * float64(total))
	if m.both {
		return min(share, int64(m.Bytes))
	}
	return max(share, int64(m.Bytes))
}

// Period is a length of time, written like 90d or 36h.
type Period time.Duration

// UnmarshalText reads a period.
func (p *Period) UnmarshalText(text []byte) error {
	if days, ok := strings.CutSuffix(string(text), "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is not a number of days: write 90d", text)
		}
		*p = Period(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	d, err := time.ParseDuration(string(text))
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not a length of time: write 90d or 36h", text)
	}
	*p = Period(d)
	return nil
}
