package aws

import "github.com/precast-ota/precast/builder"

var (
	_ builder.Objects       = (*Objects)(nil)
	_ builder.Sources       = (*Sources)(nil)
	_ builder.Catalog       = (*Catalog)(nil)
	_ builder.CatalogWriter = (*Catalog)(nil)
	_ builder.Queue         = (*Queue)(nil)
	_ builder.DeadLetters   = (*Queue)(nil)
	_ builder.Ledger        = (*Ledger)(nil)
)
