package settings

import "time"

// Signing are the settings of signed statements, of precast serve and the composer function. The tags are those of
// Build. What statements can have as a schedule is for the issuer to say.
type Signing struct {
	SigningKey        string        `help:"Sign statements with this key: file:PATH, env:NAME or kms:ARN-OR-ALIAS. Default: nothing is signed." env:"PRECAST_SIGNING_KEY" placeholder:"SOURCE"`
	StatementPeriod   time.Duration `help:"How often statements are signed again." env:"PRECAST_STATEMENT_PERIOD" default:"24h"`
	StatementValidity time.Duration `help:"Validity of a statement, from the start of its period." env:"PRECAST_STATEMENT_VALIDITY" default:"168h"`
}

// CDN names what publishes tell of at CloudFront, for the commands that publish and the builder function.
type CDN struct {
	Distribution  string `help:"ID of a CloudFront distribution: invalidate its cached answers (/package*) at every publish." env:"PRECAST_DISTRIBUTION" placeholder:"ID" group:"aws"`
	KeyValueStore string `help:"ARN of a CloudFront KeyValueStore: write the table of rollouts to it at every publish." env:"PRECAST_KEY_VALUE_STORE" placeholder:"ARN" group:"aws"`
}
