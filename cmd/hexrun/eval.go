package main

import (
	"context"

	"github.com/urfave/cli/v3"
)

func evalCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:     "eval",
		Usage:    "measure what caches do to a model's answers, with intervals",
		Commands: []*cli.Command{evalKLDCommand(e), evalGreedyCommand(e), evalRecallCommand(e)},
		Action: action(e, func(_ context.Context, cmd *cli.Command) error {
			return usagef("eval needs to know what to measure; use hexrun eval kld, for example; see hexrun eval --help")
		}),
	}
}
