package rig

// Waiting counts the requests that wait for another's fetch.
func (c *CloudFront) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, f := range c.flights {
		n += f.waiting
	}
	return n
}
