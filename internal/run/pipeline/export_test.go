package pipeline

import "context"

// CollectUntilDone is what Run does about what nothing needs.
func (p *Pipeline) CollectUntilDone(ctx context.Context) { p.collect(ctx) }
