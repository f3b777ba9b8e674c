// Package aws keeps everything in AWS: objects in S3, the catalog and the ledger in DynamoDB,
// jobs in SQS.
//
// The drivers share nothing but the configuration that Connect loads: each is made from one SDK
// client and the name of what Terraform (or Setup, for a trial) has created.
package aws
