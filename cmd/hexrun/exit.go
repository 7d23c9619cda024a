package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/hexkv"
)

// Exit codes, as hexrun --help documents them.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// usageError is a command line that cannot work.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// actionError marks an error that an action returned, so that all others are known to be the parser's.
type actionError struct{ error }

func (e actionError) Unwrap() error { return e.error }

// exitCode classifies an error.
func exitCode(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, context.Canceled), errors.Is(err, hexkv.ErrCancelled):
		return exitInterrupted
	case errors.As(err, &usage), errors.Is(err, hexkv.ErrInvalidConfig):
		return exitUsage
	}
	return exitError
}

// fromParser reports whether err comes from urfave/cli rather than from this program.
func fromParser(err error) bool {
	var usage *usageError
	var action actionError
	return err != nil && !errors.As(err, &usage) && !errors.As(err, &action)
}

var (
	unknownFlag = regexp.MustCompile(`^flag provided but not defined: -(.*)$`)
	noValue     = regexp.MustCompile(`^flag needs an argument: (.*)$`)
	badValue    = regexp.MustCompile(`^invalid value "(.*)" for flag -([^:]*): (.*)$`)
	badEnv      = regexp.MustCompile(`^could not parse "(.*)" as (\w+) value from environment variable "(\w+)" for flag [^:]*: (.*)$`)
	badNumber   = regexp.MustCompile(`^strconv\.\w+: parsing .*: (invalid syntax|value out of range)$`)
)

// commandLine rewrites the parser's errors as one sentence with a remedy.
func commandLine(cmd *cli.Command, args []string, err error) error {
	help := cmd.FullName() + " --help"
	text := err.Error()
	if name := unknownCommand(cmd, args); name != "" { // what follows it is not the fault
		if cmd == cmd.Root() {
			return noCommand(name)
		}
		return stray(cmd, name)
	}
	if m := unknownFlag.FindStringSubmatch(text); m != nil {
		flag := typed(args, m[1])
		if instead := elsewhere[m[1]]; instead != "" {
			return usagef("%s is no flag of %s: %s", flag, cmd.FullName(), instead)
		}
		return usagef("unknown flag %s; see %s", flag, help)
	}
	if m := noValue.FindStringSubmatch(text); m != nil {
		if m[1] == "--hex" {
			return needsPreset()
		}
		return usagef("%s needs a value; see %s", m[1], help)
	}
	if m := badValue.FindStringSubmatch(text); m != nil {
		reason := m[3]
		switch {
		case badNumber.MatchString(reason):
			reason = "use " + rangeOf(cmd, m[2])
		case m[2] == "hex":
			return needsPreset()
		}
		return usagef("%s %s: %s; see %s", dashed(m[2]), m[1], reason, help)
	}
	if m := badEnv.FindStringSubmatch(text); m != nil {
		if m[2] == "string" { // only a flag's own check refuses one
			return usagef("the environment variable %s=%s is not understood: %s", m[3], m[1], m[4])
		}
		return usagef("the environment variable %s=%s is not a valid %s; correct or unset it", m[3], m[1], m[2])
	}
	return usagef("%s; see %s", text, help)
}
