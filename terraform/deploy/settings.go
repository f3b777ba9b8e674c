package deploy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Settings are what an installation is made with. They are kept in its folder: a later command without
// flags uses them.
type Settings struct {
	Name    string `json:"name"`
	Region  string `json:"region"`
	Account string `json:"account"`
	// Endpoint is where AWS is, if it is not AWS: a stand-in of tests.
	Endpoint string `json:"endpoint,omitempty"`
	// Vars are variables of the module, as JSON.
	Vars map[string]json.RawMessage `json:"vars,omitempty"`
	// VarFiles are the names of variable files in the installation's folder, in order.
	VarFiles      []string `json:"varFiles,omitempty"`
	BackendConfig []string `json:"backendConfig,omitempty"`
	// Leftover is a function that could not be deleted yet, after everything else was.
	Leftover *Leftover `json:"leftover,omitempty"`
}

// Leftover is a Lambda@Edge function that waits for its replicas to go.
type Leftover struct {
	Function string `json:"function"`
	Region   string `json:"region"`
	Address  string `json:"address"` // in the state, where it was
}

const settingsFile = "installation.json"

// ErrNone: the folder has no installation.
var ErrNone = errors.New("there is no installation")

// Load reads the settings of the installation in a folder.
func Load(dir string) (Settings, error) {
	var s Settings
	data, err := os.ReadFile(filepath.Join(dir, settingsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("open %s: %w", dir, ErrNone)
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read %s: %w", filepath.Join(dir, settingsFile), err)
	}
	return s, nil
}

// Same tells whether settings are for the installation that a folder has: name, region, account and endpoint
// cannot change, or what there is would be lost from sight.
func (s Settings) Same(kept Settings) error {
	for _, f := range []struct{ what, is, was string }{
		{"name", s.Name, kept.Name},
		{"region", s.Region, kept.Region},
		{"account", s.Account, kept.Account},
		{"endpoint (AWS_ENDPOINT_URL)", s.Endpoint, kept.Endpoint},
	} {
		if f.is != f.was {
			return fmt.Errorf("its %s is %q, and not %q", f.what, f.was, f.is)
		}
	}
	return nil
}

// Save keeps the settings.
func (i *Installation) Save() error {
	data, err := marshal(i.Settings)
	if err == nil {
		err = writeFile(i.file(settingsFile), data)
	}
	if err != nil {
		return fmt.Errorf("keep the settings: %w", err)
	}
	return nil
}

// ParseVar reads a variable written NAME=VALUE: JSON if the value is an object, a list or null, else text,
// which Terraform turns into a number or a bool where the variable is one.
func ParseVar(assignment string) (name string, value json.RawMessage, err error) {
	name, text, ok := strings.Cut(assignment, "=")
	name, text = strings.TrimSpace(name), strings.TrimSpace(text)
	if !ok || name == "" {
		return "", nil, fmt.Errorf("variable %q is not of the form NAME=VALUE", assignment)
	}
	if text == "null" || strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		if !json.Valid([]byte(text)) {
			return "", nil, fmt.Errorf("variable %s: %s is not JSON", name, text)
		}
		return name, json.RawMessage(text), nil
	}
	value, err = json.Marshal(text)
	return name, value, err
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
}
