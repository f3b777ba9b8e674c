// Package aws keeps everything in AWS: objects in S3, the catalog and the ledger in DynamoDB,
// jobs in SQS.
//
// The drivers share only the configuration that Connect loads. Each is made from one SDK client and the name of a
// resource that Terraform, or Setup for a trial, has created.
//
// docs/drivers.md is the guide to writing a driver.
package aws
