// Command wasm is the edge as a WebAssembly reactor for WASI preview 1; edge/shim loads it. Lambda@Edge
// runs no Go (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/lambda-at-edge-function-restrictions.html).
package main
