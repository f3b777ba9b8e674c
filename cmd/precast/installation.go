package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	awsstore "github.com/precast-ota/precast/internal/store/aws"
	"github.com/precast-ota/precast/terraform"
	"github.com/precast-ota/precast/terraform/deploy"
)

// installationFlags name an installation, and configure Terraform.
type installationFlags struct {
	Name      string `help:"Name of the installation, and prefix of its resources' names." default:"precast"`
	Region    string `help:"AWS region; default: AWS_REGION or the AWS configuration. Edge resources are always in us-east-1." placeholder:"REGION"`
	Dir       string `help:"Folder of the installation; default: .precast/NAME." placeholder:"DIR" type:"path"`
	Terraform string `help:"The terraform to run; default: the one in PATH." env:"PRECAST_TERRAFORM" placeholder:"FILE"`
	Mirror    string `help:"Folder with Terraform's providers, instead of the registry." env:"TF_PLUGIN_MIRROR" placeholder:"DIR" hidden:""`
	Endpoint  string `help:"Endpoint of AWS, for tests." env:"AWS_ENDPOINT_URL" hidden:""`
}

// moduleFlags configure the module.
type moduleFlags struct {
	Packages      string   `help:"Folder with the functions' packages. Missing ones are built if the sources are available." default:"dist" placeholder:"DIR" type:"path"`
	Var           []string `help:"Variable of the module, NAME=VALUE; write objects and lists as JSON. Kept for later commands." placeholder:"NAME=VALUE" sep:"none"`
	VarFile       []string `help:"File with variables, .tfvars or .tfvars.json. Kept for later commands." placeholder:"FILE" type:"existingfile" sep:"none"`
	Forget        bool     `help:"Forget the variables of earlier commands."`
	Backend       string   `help:"Terraform file with a backend block; default: keep the state in the installation's folder." placeholder:"FILE" type:"existingfile"`
	BackendConfig []string `help:"Setting of the backend: NAME=VALUE, or a file." placeholder:"SETTING" sep:"none"`
}

func (f installationFlags) dir() string {
	if f.Dir != "" {
		return f.Dir
	}
	return filepath.Join(".precast", f.Name)
}

func (f installationFlags) options(out io.Writer) deploy.Options {
	return deploy.Options{Dir: f.dir(), Module: terraform.Module(), Out: out,
		Env: deploy.Environment{Executable: f.Terraform, PluginMirror: f.Mirror, Environ: os.Environ()}}
}

// account is an AWS account, and how to reach it.
type account struct {
	cfg aws.Config
	id  string
}

// connect detects missing credentials before Terraform does, with a clearer message.
func (f installationFlags) connect(ctx context.Context) (account, error) {
	var opts []func(*config.LoadOptions) error
	if f.Region != "" {
		opts = append(opts, config.WithRegion(f.Region))
	}
	cfg, err := awsstore.LoadConfig(ctx, opts...)
	if err != nil {
		return account{}, fmt.Errorf("%w, or give --region", err)
	}
	who, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return account{}, fmt.Errorf("look up the AWS account of the credentials: %w\nSet AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run aws sso login", err)
	}
	return account{cfg, aws.ToString(who.Account)}, nil
}

// settings returns the settings kept in the folder, or new ones from the flags.
func (f installationFlags) settings(a account) (s deploy.Settings, kept bool, err error) {
	s, err = deploy.Load(f.dir())
	if err != nil && !errors.Is(err, deploy.ErrNone) {
		return s, false, err
	}
	kept = err == nil
	wanted := deploy.Settings{Name: f.Name, Region: a.cfg.Region, Account: a.id, Endpoint: f.Endpoint}
	if kept {
		if err := wanted.Same(s); err != nil {
			return s, true, fmt.Errorf("%s holds another installation: %w", f.dir(), err)
		}
		return s, true, nil
	}
	return wanted, false, nil
}

// apply puts the flags into settings.
func (f moduleFlags) apply(s *deploy.Settings) error {
	if f.Forget {
		s.Vars = nil
	}
	if s.Vars == nil {
		s.Vars = make(map[string]json.RawMessage)
	}
	for _, assignment := range f.Var {
		name, value, err := deploy.ParseVar(assignment)
		if err != nil {
			return fmt.Errorf("--var: %w", err)
		}
		s.Vars[name] = value
	}
	if len(f.BackendConfig) > 0 {
		s.BackendConfig = f.BackendConfig
	}
	return nil
}

// prepare gets everything ready for a plan.
func (f moduleFlags) prepare(ctx context.Context, in installationFlags, a account, out io.Writer) (*deploy.Installation, error) {
	s, _, err := in.settings(a)
	if err != nil {
		return nil, err
	}
	if err := f.apply(&s); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "installation %s in account %s, %s; folder %s\n", s.Name, s.Account, s.Region, in.dir())
	varFiles := f.VarFile
	if len(varFiles) == 0 && !f.Forget {
		for _, name := range s.VarFiles {
			varFiles = append(varFiles, filepath.Join(in.dir(), name))
		}
	}
	arch, err := deploy.Architecture(s, varFiles)
	if err != nil {
		return nil, err
	}
	packages := deploy.Packages{Dir: f.Packages, Arch: arch}
	if err := packages.Find(ctx, out); err != nil {
		return nil, err
	}
	return deploy.Prepare(ctx, in.options(out), s, deploy.Files{VarFiles: f.VarFile, Forget: f.Forget, Backend: f.Backend, Packages: &packages})
}

func (a account) finder() deploy.AWSFinder {
	return deploy.AWSFinder{CloudFront: cloudfront.NewFromConfig(a.cfg), Lambda: lambda.NewFromConfig(a.cfg)}
}

// plan prepares an installation, adopts what an interrupted run created, and plans the changes.
func (f moduleFlags) plan(ctx context.Context, in installationFlags, out io.Writer) (a account, i *deploy.Installation, s deploy.Summary, err error) {
	if a, err = in.connect(ctx); err != nil {
		return
	}
	if i, err = f.prepare(ctx, in, a, out); err != nil {
		return
	}
	if _, err = i.Adopt(ctx, a.finder()); err != nil {
		return
	}
	s, err = i.Plan(ctx)
	return
}
