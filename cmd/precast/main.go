// Command precast prebuilds packages for anonymous devices and serves them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

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
	Serve     serveCmd     `cmd:"" help:"Watch the catalog, build what it changes and answer devices."`
	Seed      seedCmd      `cmd:"" help:"Bring in the sample: nine items with made-up binaries."`
	Catalog   catalogCmd   `cmd:"" help:"Read and change the catalog."`
	Plan      planCmd      `cmd:"" help:"Show what a build would do, and do nothing."`
	Build     buildCmd     `cmd:"" help:"Build and publish what the catalog says, once."`
	Status    statusCmd    `cmd:"" help:"Show how far what is published is behind the catalog."`
	History   historyCmd   `cmd:"" help:"List the generations that were published."`
	Diff      diffCmd      `cmd:"" help:"Show who would get what, before and after."`
	Rollback  rollbackCmd  `cmd:"" help:"Publish an earlier generation again, pinned, by one write."`
	Pin       pinCmd       `cmd:"" help:"Keep what is published from being replaced."`
	Unpin     unpinCmd     `cmd:"" help:"Take the pin off and publish what the catalog says."`
	Fsck      fsckCmd      `cmd:"" help:"Prove that what is published is complete, and repair it."`
	GC        gcCmd        `cmd:"" name:"gc" help:"Remove objects that nothing needs any more."`
	Inspect   inspectCmd   `cmd:"" help:"Look into a bundle and hold it against its manifest."`
	Keys      keysCmd      `cmd:"" help:"Make, change and publish the keys that devices trust."`
	Verify    verifyCmd    `cmd:"" help:"Check signatures as a device does."`
	Demo      demoCmd      `cmd:"" help:"Play the whole story in a temporary folder."`
	Deploy    deployCmd    `cmd:"" help:"Deploy an installation to AWS by Terraform, or change it."`
	PlanInfra planInfraCmd `cmd:"" name:"plan-infra" help:"Show what precast deploy would change, and do nothing."`
	Destroy   destroyCmd   `cmd:"" help:"Delete an installation, with everything in it."`
	Cost      costCmd      `cmd:"" help:"Estimate what a month on AWS costs."`
	Version   versionCmd   `cmd:"" help:"Print the version, and the format of what it builds."`
}

const description = `Packages for anonymous devices, prebuilt.

Exit codes: 0 done; 1 something went wrong; 2 the command line was wrong;
3 the answer is no (a bundle that is not sound, items that cannot be published).`

// streams are what a command talks to.
type streams struct {
	out, err io.Writer
	in       io.Reader
	terminal bool // somebody is at in to be asked
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], streams{out: os.Stdout, err: os.Stderr, in: os.Stdin, terminal: term.IsTerminal(int(os.Stdin.Fd()))}))
}

// run parses the command line, does what it says and returns the exit code.
func run(ctx context.Context, args []string, std streams) int {
	var cmds commands
	exit := -1
	parser, err := kong.New(&cmds,
		kong.Name("precast"),
		kong.Description(description),
		kong.Writers(std.out, std.err),
		kong.Exit(func(code int) { exit = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 100}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(std))
	if err != nil {
		fmt.Fprintln(std.err, "precast:", err)
		return exitError
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	if len(args) == 1 && args[0] == "--version" { // no flag: catalog put has one of this name
		args = []string{"version"}
	}
	parsed, err := parser.Parse(args)
	if exit >= 0 { // --help
		return exit
	}
	if err != nil {
		fmt.Fprintf(std.err, "precast: %v\nTry precast --help.\n", err)
		return exitUsage
	}
	var answer noError
	switch err := parsed.Run(); {
	case err == nil:
		return exitOK
	case errors.As(err, &answer):
		fmt.Fprintln(std.err, "precast:", err)
		return exitNo
	case ctx.Err() != nil:
		fmt.Fprintln(std.err, "precast: interrupted")
		return exitError
	default:
		fmt.Fprintln(std.err, "precast:", err)
		return exitError
	}
}
