package rig

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	unsigned   = "UNSIGNED-PAYLOAD"
	amzDate    = "20060102T150405Z"
	maxSkew    = 15 * time.Minute // https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, RequestTimeTooSkewed
	hashHeader = "X-Amz-Content-Sha256"
)

// sign signs a request as origin access control does.
func sign(ctx context.Context, r *http.Request, who aws.Credentials, service, region string, now time.Time) error {
	r.Header.Set(hashHeader, unsigned)
	return v4.NewSigner().SignHTTP(ctx, who, r, unsigned, service, region, now, func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = service == "s3" // S3 escapes a path once only
	})
}

// verify checks a request's signature by making it again, and returns whose it is.
func verify(r *http.Request, keys map[string]aws.Credentials, service, region string, now time.Time) (accessKey string, err error) {
	rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ok {
		return "", errors.New("request is not signed")
	}
	part := make(map[string]string)
	for field := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		part[name] = value
	}
	scope := strings.Split(part["Credential"], "/")
	if len(scope) != 5 || scope[2] != region || scope[3] != service {
		return "", fmt.Errorf("signature is for %q, not for %s in %s", part["Credential"], service, region)
	}
	who, ok := keys[scope[0]]
	if !ok {
		return "", fmt.Errorf("no such access key: %s", scope[0])
	}
	at, err := time.Parse(amzDate, r.Header.Get("X-Amz-Date"))
	if err != nil {
		return "", fmt.Errorf("read X-Amz-Date: %w", err)
	}
	if skew := now.Sub(at).Abs(); skew > maxSkew {
		return "", fmt.Errorf("request time differs by %s", skew)
	}
	again := &http.Request{Method: r.Method, Host: r.Host, Header: make(http.Header),
		URL: &url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}}
	listed := ";" + part["SignedHeaders"] + ";"
	for _, must := range []string{"host", "x-amz-date", strings.ToLower(hashHeader)} {
		if !strings.Contains(listed, ";"+must+";") {
			return "", fmt.Errorf("%s is not signed", must)
		}
	}
	for name, values := range r.Header {
		lower := strings.ToLower(name)
		if strings.Contains(listed, ";"+lower+";") {
			again.Header[name] = values
		} else if strings.HasPrefix(lower, "x-amz-") && lower != "x-amz-cf-id" {
			return "", fmt.Errorf("%s is not signed", lower)
		}
	}
	hash := r.Header.Get(hashHeader)
	err = v4.NewSigner().SignHTTP(r.Context(), who, again, hash, service, region, at, func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = service == "s3"
	})
	if err != nil {
		return "", err
	}
	if subtle.ConstantTimeCompare([]byte(again.Header.Get("Authorization")), []byte(r.Header.Get("Authorization"))) != 1 {
		// Signers differ in white space only.
		if squeeze(again.Header.Get("Authorization")) != squeeze(r.Header.Get("Authorization")) {
			return "", errors.New("signature does not match")
		}
	}
	return scope[0], nil
}

func squeeze(s string) string { return strings.ReplaceAll(s, " ", "") }
