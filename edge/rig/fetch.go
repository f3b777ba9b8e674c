package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
)

// fetch gets the answer to a miss: from the primary origin and, if that fails over, from the secondary. The
// origin-request function runs for each of them, on the same request; the Function does not run again
// (high_availability_origin_failover.html, concept_origin_groups.lambda).
func (c *CloudFront) fetch(ctx context.Context, t *Trace, b *Behavior, r *request) *response {
	first := c.fetchFrom(ctx, t, b, b.Primary, r.clone())
	if b.Secondary == nil || t.Broken != nil || !slices.Contains(b.FailoverOn, first.status) {
		return first
	}
	if first.generated && !c.dist.Assume.GeneratedFailsOver {
		return first
	}
	t.Failover = first.status
	return c.fetchFrom(ctx, t, b, b.Secondary, r.clone())
}

func (c *CloudFront) fetchFrom(ctx context.Context, t *Trace, b *Behavior, o *Origin, r *request) *response {
	if b.OriginRequest {
		changed, generated, err := c.runHandler(ctx, t, o, r)
		if err != nil {
			return c.broken(t, err)
		}
		if generated != nil {
			t.Origin = "edge"
			generated.origin = t.Origin
			t.Fetches = append(t.Fetches, fmt.Sprintf("edge %s %d", r.method, generated.status))
			return generated
		}
		r = changed
	}
	t.Origin = o.Name
	a := c.ask(ctx, o, r)
	t.Fetches = append(t.Fetches, fmt.Sprintf("%s %s %s %d", o.Name, r.method, target(r), a.status))
	return a
}

func target(r *request) string {
	if r.query == "" {
		return r.uri
	}
	return r.uri + "?" + r.query
}

// ask sends a request to an origin. It tries once: CloudFront's three attempts to connect make no difference
// to an origin that is on this machine.
func (c *CloudFront) ask(ctx context.Context, o *Origin, r *request) *response {
	limit := o.ReadTimeout
	if limit == 0 {
		limit = c.dist.Limits.Origin
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errTooLong)
	defer cancel()
	a, err := c.roundTrip(ctx, o, r)
	switch {
	case err == nil:
		a.origin = o.Name
		return a
	case errors.Is(err, errTooLong), errors.Is(context.Cause(ctx), errTooLong):
		return failure(http.StatusGatewayTimeout, "We can't connect to the server for this app or website at this time.", o.Name)
	default:
		var network net.Error
		_ = errors.As(err, &network)
		return failure(http.StatusBadGateway, "CloudFront wasn't able to connect to the origin: "+err.Error(), o.Name)
	}
}

func (c *CloudFront) roundTrip(ctx context.Context, o *Origin, r *request) (*response, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, o.URL+target(r), nil)
	if err != nil {
		return nil, err
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	req.Header.Set("X-Amz-Cf-Id", r.id)
	for name, value := range o.CustomHeaders {
		req.Header.Set(name, value)
	}
	if o.Service != "" {
		if err := sign(ctx, req, c.oac, o.Service, o.Region, c.now()); err != nil {
			return nil, err
		}
	}
	resp, err := c.client.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil { // cut short: never cached (RequestAndResponseBehaviorCustomOrigin.html, ResponseCustomDroppedTCPConnections)
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return &response{status: resp.StatusCode, header: resp.Header, body: body}, nil
}

// failure is an error page of CloudFront's own.
func failure(status int, text, origin string) *response {
	body := "<HTML><HEAD><TITLE>ERROR: The request could not be satisfied</TITLE></HEAD><BODY><H1>" +
		fmt.Sprintf("%d ERROR", status) + "</H1>" + strings.ReplaceAll(text, "<", "&lt;") + "</BODY></HTML>\n"
	return &response{status: status, header: http.Header{"Content-Type": {"text/html"}, "Server": {"CloudFront"}}, body: []byte(body), origin: origin}
}

// broken is the answer that breaking a rule gives.
func (c *CloudFront) broken(t *Trace, err error) *response {
	t.Broken = err
	t.Origin = ""
	var b *Broken
	if errors.As(err, &b) {
		return failure(b.Status, b.Error(), "")
	}
	return failure(http.StatusBadGateway, err.Error(), "")
}
