package rig

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// A Broken names the rule of CloudFront's that an edge function or a request broke.
type Broken struct {
	Rule   string // one of the Rule constants
	Status int    // of the answer
	What   string
}

func (b *Broken) Error() string { return b.Rule + ": " + b.What }

// Rules, and the status that breaking one gives.
const (
	RuleURLLength       = "URL is too long"                               // 413
	RuleRequestLength   = "request is too long"                           // 413
	RuleMethod          = "method is not allowed"                         // 403
	RuleFunctionError   = "Function failed"                               // 503
	RuleFunctionResult  = "Function returned what it must not"            // 502
	RuleFunctionAnswer  = "Function's response is too large"              // 502
	RuleHandlerError    = "origin-request function failed"                // 500
	RuleHandlerTime     = "origin-request function took too long"         // 500
	RuleHandlerResult   = "origin-request function returned no valid one" // 502
	RuleGeneratedLength = "generated response is too large"               // 502
	RuleReadOnlyHeader  = "read-only header was changed"                  // 502
	RuleDisallowed      = "disallowed header was added"                   // 502
	RuleHeaderName      = "header is not valid"                           // 502
	RuleOriginSwitch    = "origin was switched under origin access control"
)

// Headers that edge functions do not see and cannot add: what begins so, and these.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/edge-function-restrictions-all.html#function-restrictions-disallowed-headers
func disallowed(name string) bool {
	if strings.HasPrefix(name, "x-amz-cf-") || strings.HasPrefix(name, "x-edge-") {
		return true
	}
	return slices.Contains([]string{
		"connection", "expect", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
		"trailer", "upgrade", "x-accel-buffering", "x-accel-charset", "x-accel-limit-rate", "x-accel-redirect",
		"x-amzn-auth", "x-amzn-cf-billing", "x-amzn-cf-id", "x-amzn-cf-xff", "x-amzn-errortype",
		"x-amzn-fle-profile", "x-amzn-header-count", "x-amzn-header-order", "x-amzn-lambda-integration-tag",
		"x-amzn-requestid", "x-cache", "x-forwarded-proto", "x-real-ip",
	}, name)
}

// Headers that a function can read and not change.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/edge-function-restrictions-all.html#function-restrictions-read-only-headers
func readOnlyInViewerRequest() []string {
	return []string{"content-length", "host", "transfer-encoding", "via"}
}

func readOnlyInOriginRequest() []string {
	return []string{"accept-encoding", "cdn-loop", "content-length", "if-modified-since", "if-none-match", "if-range",
		"if-unmodified-since", "transfer-encoding", "via"}
}

// checkRequestHeaders compares the headers that a function was given with those it returned.
func checkRequestHeaders(before, after http.Header, readOnly []string) error {
	for _, name := range readOnly {
		key := http.CanonicalHeaderKey(name)
		if !slices.Equal(before[key], after[key]) {
			return &Broken{RuleReadOnlyHeader, 502, fmt.Sprintf("%s was %q, is %q", name, before[key], after[key])}
		}
	}
	for name := range after {
		if lower := strings.ToLower(name); disallowed(lower) {
			return &Broken{RuleDisallowed, 502, lower}
		}
	}
	return nil
}

// checkResponseHeaders does the same for a generated response.
func checkResponseHeaders(headers http.Header, readOnly []string) error {
	for name := range headers {
		lower := strings.ToLower(name)
		if disallowed(lower) {
			return &Broken{RuleDisallowed, 502, lower}
		}
		if slices.Contains(readOnly, lower) {
			return &Broken{RuleReadOnlyHeader, 502, lower}
		}
	}
	return nil
}

// checkHeader refuses names and values that HTTP cannot carry.
func checkHeader(name, value string) error {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return !token(r) }) {
		return &Broken{RuleHeaderName, 502, fmt.Sprintf("name %q", name)}
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < 0x20 && r != '\t' || r == 0x7f }) {
		return &Broken{RuleHeaderName, 502, fmt.Sprintf("value of %s: %q", name, value)}
	}
	return nil
}

// token is RFC 9110's tchar.
func token(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// checkTarget checks the URI and query that a function returns.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/edge-function-restrictions-all.html#function-restrictions-query-strings
func checkTarget(rule, uri, query string, limit int) error {
	switch {
	case !strings.HasPrefix(uri, "/"):
		return &Broken{rule, 502, fmt.Sprintf("uri %.100q does not begin with /", uri)}
	case len(uri)+1+len(query) >= limit:
		return &Broken{rule, 502, fmt.Sprintf("uri and query have %d bytes", len(uri)+1+len(query))}
	case strings.ContainsFunc(query, func(r rune) bool { return r <= ' ' || r == '#' || r == 0x7f }):
		return &Broken{rule, 502, fmt.Sprintf("query %.100q has a space, control character or #", query)}
	case strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r == '#' || r == '?' || r == 0x7f }):
		return &Broken{rule, 502, fmt.Sprintf("uri %.100q has a space, control character, # or ?", uri)}
	}
	return nil
}
