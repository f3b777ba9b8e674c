//go:build !aws

package faults_test

// awsRoles are played with the AWS drivers only.
func awsRoles() map[string]func(dir, arg string) error { return nil }
