package iampolicy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Guard is AWS to those who have a policy: it passes their calls on to Next as far as they are allowed. Who they
// are is their access key. Others it does not look at.
type Guard struct {
	Next            http.Handler
	Region, Account string
	Policies        map[string]Policy // by access key

	mu      sync.Mutex
	used    map[string]map[string]bool
	refused []string
}

var accessKey = regexp.MustCompile(`Credential=([^/]+)/`)

func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var who string
	if m := accessKey.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
		who = m[1]
	}
	policy, known := g.Policies[who]
	if !known {
		g.Next.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	needs, err := Needs(r, body, g.Region, g.Account)
	if err != nil { // not understood: not allowed
		g.refuse(w, r, who, err.Error())
		return
	}
	for _, n := range needs {
		if !policy.Allows(n) {
			g.refuse(w, r, who, n.Action+" on "+n.Resource)
			return
		}
	}
	g.mu.Lock()
	if g.used == nil {
		g.used = make(map[string]map[string]bool)
	}
	if g.used[who] == nil {
		g.used[who] = make(map[string]bool)
	}
	for _, n := range needs {
		g.used[who][n.Action] = true
	}
	g.mu.Unlock()
	if (r.Method == http.MethodGet || r.Method == http.MethodHead) && needs[0].Action == "s3:GetObject" {
		bucket, _, _ := strings.Cut(needs[0].Resource, "/")
		if list := (Need{Action: "s3:ListBucket", Resource: bucket}); policy.Allows(list) {
			w = &missing{ResponseWriter: w, seen: func() {
				g.mu.Lock()
				defer g.mu.Unlock()
				g.used[who][list.Action] = true
			}}
		} else {
			w = &missing{ResponseWriter: w, hide: true, seen: func() {
				g.mu.Lock()
				defer g.mu.Unlock()
				g.refused = append(g.refused, who+": to know that something is missing from "+bucket)
			}}
		}
	}
	g.Next.ServeHTTP(w, r)
}

// missing is an answer that says 404, or 403 to who may not list
// (https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html).
type missing struct {
	http.ResponseWriter
	hide bool
	seen func()
}

func (m *missing) WriteHeader(status int) {
	if status == http.StatusNotFound {
		m.seen()
		if m.hide {
			status = http.StatusForbidden
		}
	}
	m.ResponseWriter.WriteHeader(status)
}

func (g *Guard) refuse(w http.ResponseWriter, r *http.Request, who, what string) {
	g.mu.Lock()
	g.refused = append(g.refused, who+": "+what)
	g.mu.Unlock()
	if r.Header.Get("X-Amz-Target") == "" {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusForbidden)
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
		}
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprintf(w, `{"__type":"AccessDeniedException","message":%q}`, "not allowed: "+what)
}

// Refused says which calls were not allowed, and whose.
func (g *Guard) Refused() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.refused)
}

// Unused are the actions that somebody may do and has not done.
func (g *Guard) Unused(who string) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []string
	for a := range g.Policies[who].Actions() {
		if !g.used[who][a] {
			all = append(all, a)
		}
	}
	slices.Sort(all)
	return all
}
