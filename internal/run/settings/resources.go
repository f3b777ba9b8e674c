package settings

import (
	"fmt"
	"net/url"
	"strings"
)

// Bucket reads the URL of a bucket, s3://BUCKET.
func Bucket(text string) (name string, err error) { return named(text, "s3://", "BUCKET") }

// Table reads the URL of a table, dynamodb://TABLE.
func Table(text string) (name string, err error) { return named(text, "dynamodb://", "TABLE") }

func named(text, scheme, example string) (string, error) {
	rest, ok := strings.CutPrefix(text, scheme)
	if !ok || rest == "" || strings.Contains(rest, "/") {
		return "", fmt.Errorf("%q is not of the form %s%s", text, scheme, example)
	}
	return rest, nil
}

// Queue reads the URL of a queue, sqs://HOST/ACCOUNT/NAME, or the one that AWS gave it.
func Queue(text string) (queueURL string, err error) {
	if rest, ok := strings.CutPrefix(text, "sqs://"); ok {
		text = "https://" + rest
	}
	if u, err := url.Parse(text); err != nil || u.Host == "" || u.Path == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", fmt.Errorf("%q is not of the form sqs://HOST/ACCOUNT/NAME", text)
	}
	return text, nil
}
