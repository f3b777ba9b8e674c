package client

import "github.com/precast-ota/precast/internal/trust/statement"

// LeaveOut makes a client not check something.
func LeaveOut(c *Client, checks ...Check) {
	c.skip = make(map[Check]bool)
	for _, check := range checks {
		c.skip[check] = true
	}
}

// MaxBundle is how long a bundle of n lacking items, of size bytes in all, may be.
func MaxBundle(n int, size int64) int64 {
	var said statement.Signed
	said.Items = make([]statement.Item, n)
	said.Items[0].Size = size
	return maxBundle(&said, said.Items)
}

// WithoutSlot makes a client send no slot.
func WithoutSlot(c *Client) { c.opt.NoSlot = true }
