package lambdas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
	"github.com/precast-ota/precast/internal/run/answer"
)

// serveStatement answers for a statement, under the path that edge.Decision.Object gives it. Statements are
// made of the published generation, and of the one before, since the edge may be seconds behind; nobody gets a
// fresh statement of anything older.
func (c *Composer) serveStatement(w http.ResponseWriter, r *http.Request, path string) {
	if c.Statements == nil {
		answer.Fail(w, http.StatusNotFound, edge.ErrNotSigned)
		return
	}
	data, d, err := c.statement(r.Context(), path, r.Header)
	if err != nil {
		c.unavailable(r.Context(), w, "sign statement", path, err)
		return
	}
	if d.Status != edge.StatusOK {
		answer.Fail(w, d.Status, d.Error)
		return
	}
	answer.Object(w, r, layout.Statement, c.Statements.ETag(path), bytes.NewReader(data))
}

func (c *Composer) statement(ctx context.Context, path string, h http.Header) ([]byte, edge.Decision, error) {
	notFound := edge.Decision{Status: edge.StatusNotFound, Error: edge.ErrNotFound}
	generation, epoch, _, err := layout.ParseStatementKey(path)
	if err != nil {
		return nil, notFound, nil
	}
	ix, _, err := builder.ReadIndex(ctx, c.Objects)
	if err != nil {
		return nil, notFound, err
	}
	if ix != nil && generation > 0 && ix.Generation == generation+1 {
		earlier, err := builder.ReadGeneration(ctx, c.Objects, generation)
		if errors.Is(err, builder.ErrNotExist) {
			return nil, notFound, nil
		}
		if err != nil {
			return nil, notFound, err
		}
		ix = earlier
	}
	d := decide(ix, h)
	if d.Status != edge.StatusOK {
		return nil, d, nil
	}
	d.Epoch = epoch
	if kind, key := d.Object(); kind != layout.Statement || key != path {
		return nil, notFound, nil
	}
	data, err := c.Statements.Issue(ctx, d)
	if err != nil {
		return nil, d, fmt.Errorf("answer for %s: %w", path, err)
	}
	return data, d, nil
}
