package rig

import (
	"net/http"
	"slices"
	"strings"
)

// request is a request on its way from a viewer to an origin.
type request struct {
	id     string
	ip     string
	method string
	uri    string // path, as it was sent
	query  string // as it was sent, without ?
	header http.Header
}

func (r *request) clone() *request {
	c := *r
	c.header = r.header.Clone()
	return &c
}

// fromViewer takes a viewer's request in. Headers that are not exposed to edge functions are gone.
func fromViewer(id string, r *http.Request) *request {
	uri, query, _ := strings.Cut(r.RequestURI, "?")
	ip, _, _ := strings.Cut(r.RemoteAddr, ":")
	header := r.Header.Clone()
	for name := range header {
		if disallowed(strings.ToLower(name)) || name == "Te" || name == "Content-Length" || name == "Transfer-Encoding" {
			header.Del(name)
		}
	}
	header.Set("Host", r.Host)
	return &request{id: id, ip: ip, method: r.Method, uri: uri, query: query, header: header}
}

// Headers of conditions and ranges go on to the origin on a miss, whatever the cache policy says
// (RequestAndResponseBehaviorCustomOrigin.html, request-custom-headers-behavior).
func passedOn() []string {
	return []string{"If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Range"}
}

// toOrigin is the request that a cache miss makes: what is in the key, conditions, and what CloudFront adds.
func (r *request) toOrigin(p CachePolicy, via string) *request {
	header := make(http.Header)
	for _, name := range slices.Concat(passedOn(), p.Headers) {
		if values := r.header.Values(name); len(values) > 0 {
			header[http.CanonicalHeaderKey(name)] = slices.Clone(values)
		}
	}
	header.Set("User-Agent", "Amazon CloudFront")
	header.Set("Via", via)
	header.Set("X-Forwarded-For", r.ip)
	return &request{id: r.id, ip: r.ip, method: r.method, uri: r.uri, query: p.query(r.query), header: header}
}

// query is what of a query is in the key.
func (p CachePolicy) query(raw string) string {
	switch p.Queries {
	case AllQueries:
		return raw
	case ListedQueries:
		var kept []string
		for part := range strings.SplitSeq(raw, "&") {
			name, _, _ := strings.Cut(part, "=")
			if slices.Contains(p.Listed, name) {
				kept = append(kept, part)
			}
		}
		return strings.Join(kept, "&")
	default:
		return ""
	}
}

// key is the cache key: GET and HEAD share it.
func (p CachePolicy) key(r *request) string {
	var b strings.Builder
	b.WriteString(r.uri + "?" + p.query(r.query))
	for _, name := range p.Headers {
		b.WriteString("\n" + strings.ToLower(name) + ":" + strings.Join(r.header.Values(name), ","))
	}
	return b.String()
}

// plain tells whether nothing but the key decides the answer.
func (r *request) plain() bool {
	for _, name := range passedOn() {
		if len(r.header.Values(name)) > 0 {
			return false
		}
	}
	return r.method == http.MethodGet
}

// pairs splits a query into its parts, in order; a function sees them as they were sent.
func pairs(raw string) (names []string, values map[string][]string) {
	values = make(map[string][]string)
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		if _, ok := values[name]; !ok {
			names = append(names, name)
		}
		values[name] = append(values[name], value)
	}
	return names, values
}
