package client

// LeaveOut makes a client not check something.
func LeaveOut(c *Client, checks ...Check) {
	c.skip = make(map[Check]bool)
	for _, check := range checks {
		c.skip[check] = true
	}
}
