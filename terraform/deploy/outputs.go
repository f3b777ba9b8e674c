package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Outputs are the module's outputs.
type Outputs struct {
	URL           string            `json:"url"`
	Distribution  string            `json:"distribution_id"`
	Domain        string            `json:"distribution_domain_name"`
	Bucket        string            `json:"bucket"`
	CatalogTable  string            `json:"catalog_table"`
	LedgerTable   string            `json:"ledger_table"`
	Environment   map[string]string `json:"precast_environment"`
	FunctionNames map[string]string `json:"function_names"`

	All map[string]json.RawMessage `json:"-"`
}

// Exports are shell lines that make precast's other commands work on the installation.
func (o Outputs) Exports() []string {
	var lines []string
	for k, v := range o.Environment {
		lines = append(lines, "export "+k+"='"+strings.ReplaceAll(v, "'", `'\''`)+"'")
	}
	slices.Sort(lines)
	return lines
}

// OutputsFile is where the outputs are kept, in the installation's folder.
const OutputsFile = "outputs.json"

// Outputs reads the outputs and keeps them.
func (i *Installation) Outputs(ctx context.Context) (Outputs, error) {
	meta, err := i.tf.outputs(ctx)
	if err != nil {
		return Outputs{}, err
	}
	o := Outputs{All: make(map[string]json.RawMessage)}
	for name, m := range meta {
		o.All[name] = m.Value
	}
	data, err := marshal(o.All)
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return o, fmt.Errorf("read outputs: %w", err)
	}
	if err := writeFile(i.file(OutputsFile), data); err != nil {
		return o, fmt.Errorf("keep the outputs: %w", err)
	}
	return o, nil
}
