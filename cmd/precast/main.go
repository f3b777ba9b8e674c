// Command precast prebuilds packages for anonymous devices and serves them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"
)

// Exit codes, as documented by --help and docs/operations.md.
const (
	exitOK    = 0
	exitError = 1 // something went wrong
	exitUsage = 2 // the command line was wrong
	exitNo    = 3 // everything went well, and the answer is no
)

// noError is what a command returns that went well and whose answer is no: a bundle that does not agree
// with its manifest, a build that left something out.
type noError struct{ error }

func (e noError) Unwrap() error { return e.error }

func no(format string, args ...any) error { return noError{fmt.Errorf(format, args...)} }

type commands struct {
	Serve     serveCmd     `cmd:"" help:"Run the server: answer devices, and build and publish every change of the catalog."`
	Seed      seedCmd      `cmd:"" help:"Fill the catalog with a sample: nine items with generated binaries."`
	Catalog   catalogCmd   `cmd:"" help:"Read and change the catalog."`
	Plan      planCmd      `cmd:"" help:"Show what a build would do, without doing it."`
	Build     buildCmd     `cmd:"" help:"Build and publish the catalog once, then exit."`
	Status    statusCmd    `cmd:"" help:"Show whether the catalog is published, and which jobs failed."`
	Ask       askCmd       `cmd:"" help:"Tell what a device gets, and why."`
	History   historyCmd   `cmd:"" help:"List the generations (published versions of the whole catalog)."`
	Diff      diffCmd      `cmd:"" help:"Show which devices get other packages in one generation than in another."`
	Rollback  rollbackCmd  `cmd:"" help:"Go back: publish an earlier generation again, and pin it."`
	Pin       pinCmd       `cmd:"" help:"Stop anything new from being published."`
	Unpin     unpinCmd     `cmd:"" help:"Remove the pin, then build and publish the catalog."`
	Fsck      fsckCmd      `cmd:"" help:"Verify that everything published is there and intact, and repair it."`
	GC        gcCmd        `cmd:"" name:"gc" help:"Remove stored objects that are no longer needed."`
	Backup    backupCmd    `cmd:"" help:"Copy everything that cannot be built again, or check such a copy."`
	Restore   restoreCmd   `cmd:"" help:"Bring an installation back from a backup."`
	Inspect   inspectCmd   `cmd:"" help:"List the files of a bundle and verify them against its manifest."`
	Keys      keysCmd      `cmd:"" help:"Create, rotate, revoke and publish the keys that devices trust."`
	Verify    verifyCmd    `cmd:"" help:"Verify the signatures of a bundle or a server as a device does."`
	Demo      demoCmd      `cmd:"" help:"Try everything in a temporary folder: seed, build, serve, release."`
	Deploy    deployCmd    `cmd:"" help:"Create an installation on AWS with Terraform, or change one."`
	PlanInfra planInfraCmd `cmd:"" name:"plan-infra" help:"Show what precast deploy would change, without changing it."`
	Destroy   destroyCmd   `cmd:"" help:"Delete an installation on AWS and everything in it."`
	Cost      costCmd      `cmd:"" help:"Estimate the monthly cost on AWS."`
	Version   versionCmd   `cmd:"" help:"Print the version, and the format of the files that it builds."`

	Quiet bool `help:"Print results and errors only." short:"q"`
}

const description = `Precast builds packages before devices ask for them. A device says what kind of device it is and what it already has,
and downloads one file with everything that it is missing.

Exit codes: 0 done; 1 something went wrong; 2 the command line was wrong;
3 nothing failed, but the answer is no (a damaged bundle, items that cannot be published).`

// streams are what a command talks to.
type streams struct {
	out, err io.Writer
	in       io.Reader
	terminal bool // somebody is at in to be asked
	quiet    bool // only results and errors are to be printed
}

// progress is where is told how far a command is: to somebody who looks, unless they do not want to know.
func (s streams) progress() io.Writer {
	if s.quiet || terminalOf(s.err) == nil {
		return io.Discard
	}
	return s.err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], streams{out: os.Stdout, err: os.Stderr, in: os.Stdin, terminal: term.IsTerminal(int(os.Stdin.Fd()))}))
}

// run parses the command line, does what it says and returns the exit code.
func run(ctx context.Context, args []string, std streams) int {
	out, errs := newQuoted(std.out), newQuoted(std.err)
	std.out, std.err = out, errs
	defer func() { _ = errors.Join(out.end(), errs.end()) }() // there is nobody left to tell
	var cmds commands
	exit := -1
	parser, err := kong.New(&cmds,
		kong.Name("precast"),
		kong.Description(description),
		kong.Writers(std.out, std.err),
		kong.Exit(func(code int) { exit = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 100}),
		kong.Bind(std),
		kong.BindTo(ctx, (*context.Context)(nil)))
	if err != nil {
		fmt.Fprintln(std.err, "precast:", err)
		return exitError
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	if len(args) > 0 && args[0] == "--version" { // no flag: catalog put has one of this name
		args = append([]string{"version"}, args[1:]...)
	}
	if len(args) > 0 && args[0] == "help" {
		args = append(args[1:], "--help")
	}
	parsed, err := parser.Parse(args)
	if exit >= 0 { // --help
		return exit
	}
	if err != nil {
		fmt.Fprintf(std.err, "precast: %v\nTry precast --help.\n", err)
		return exitUsage
	}
	std.quiet = cmds.Quiet
	var answer noError
	switch err := endOrHang(ctx, graceOf(parsed.Selected().Target), func() error { return parsed.Run(std) }); {
	case err == nil:
		return exitOK
	case errors.As(err, &answer):
		fmt.Fprintln(std.err, "precast:", err)
		return exitNo
	case errors.Is(err, errHangs):
		fmt.Fprintln(std.err, "precast: interrupted:", err)
		return exitError
	case ctx.Err() != nil:
		fmt.Fprintln(std.err, "precast: interrupted")
		return exitError
	default:
		fmt.Fprintln(std.err, "precast:", err)
		return exitError
	}
}

// patient is a command that needs longer than others to end well when it is interrupted.
type patient interface{ grace() time.Duration }

const (
	commandGrace   = 5 * time.Second
	serveGrace     = shutdownGrace + commandGrace
	terraformGrace = 5 * time.Minute // the change of a resource under way is waited for
)

func (*serveCmd) grace() time.Duration   { return serveGrace }
func (*demoCmd) grace() time.Duration    { return serveGrace }
func (*deployCmd) grace() time.Duration  { return terraformGrace }
func (*destroyCmd) grace() time.Duration { return terraformGrace }

func graceOf(command reflect.Value) time.Duration {
	if command.CanAddr() {
		if p, ok := command.Addr().Interface().(patient); ok {
			return p.grace()
		}
	}
	return commandGrace
}

var errHangs = errors.New("something that cannot be interrupted is not waited for: a read from a disk that does not answer, perhaps")

// endOrHang returns what run returns, or errHangs once ctx has been done for so long as grace: a read from a mount whose
// server is away never returns, and must not keep the process from ending.
func endOrHang(ctx context.Context, grace time.Duration, run func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- run() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	hung := time.NewTimer(grace)
	defer hung.Stop()
	select {
	case err := <-ended:
		return err
	case <-hung.C:
		return errHangs
	}
}
