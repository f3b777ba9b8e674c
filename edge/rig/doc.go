// Package rig stands in for CloudFront, S3 and the composer's function URL on one machine, around the
// real artefacts: the viewer-request Function (function.js) with its key value store, the Lambda@Edge package
// (edge.zip), the objects of a builder, the composer. Tests and the demo use it; nothing else imports it.
//
// It does what AWS's documentation says, and enforces what it forbids: a rule that is broken makes the
// answer an error, and Trace.Broken names the rule. Where the documentation is silent, Assumptions says
// so, and the tests run with both readings.
//
// It is one edge location with one cache, no Origin Shield, and a body is read whole before it is sent.
//
// Sources, below https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/: Expiration.html,
// HTTPStatusCodes.html, RangeGETs.html, RequestAndResponseBehaviorCustomOrigin.html,
// RequestAndResponseBehaviorS3Origin.html, high_availability_origin_failover.html, Invalidation.html,
// edge-function-restrictions-all.html, functions-event-structure.html, lambda-event-structure.html,
// lambda-generating-http-responses-in-requests.html, understanding-response-headers-policies.html,
// cloudfront-limits.html, functions-custom-methods.html, kvs-with-functions-associate.html.
package rig
