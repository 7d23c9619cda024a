package main

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"

	"github.com/klauspost/cpuid/v2"
	"github.com/urfave/cli/v3"

	"github.com/hexkv/hexkv/hexkv"
)

// features are those that the kernels of ggml or HEX use.
var features = []cpuid.FeatureID{
	cpuid.SSE42, cpuid.AVX, cpuid.F16C, cpuid.FMA3, cpuid.AVX2, cpuid.BMI2, cpuid.AVXVNNI, cpuid.AVX512F, cpuid.AVX512BW,
	cpuid.AVX512VL, cpuid.AVX512VBMI, cpuid.AVX512VNNI, cpuid.AVX512BF16, cpuid.AMXINT8, cpuid.ASIMD, cpuid.ASIMDDP, cpuid.SVE,
}

func versionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print versions, the CPU and the kernels in use",
		Flags: []cli.Flag{formatFlag("text", "json")},
		Action: action(e, func(_ context.Context, cmd *cli.Command) error {
			v := currentVersion()
			if cmd.String("output") == "json" {
				out := json.NewEncoder(e.stdout)
				out.SetIndent("", "  ")
				return out.Encode(v)
			}
			line := func(name, value string) { fmt.Fprintf(e.stdout, "%-10s %s\n", name, value) }
			line("hexrun", v.Version)
			line("llama.cpp", v.Llama+" ("+v.Commit+")")
			line("built with", v.Compiler+", "+v.Go)
			line("CPU", fmt.Sprintf("%s, %d cores, %d threads", v.CPU, v.Cores, v.Threads))
			line("features", strings.Join(v.Features, " "))
			line("kernels", v.Kernels)
			return nil
		}),
	}
}

// versions is what hexrun version prints.
type versions struct {
	Version  string   `json:"version"`
	Llama    string   `json:"llama_cpp"`
	Commit   string   `json:"llama_cpp_commit"`
	Compiler string   `json:"compiler"`
	Go       string   `json:"go"`
	CPU      string   `json:"cpu"`
	Cores    int      `json:"cores"`
	Threads  int      `json:"threads"`
	Features []string `json:"cpu_features"`
	Kernels  string   `json:"hex_kernels"`
}

func currentVersion() versions {
	lib := hexkv.Version()
	v := versions{
		Version: lib.Version, Llama: lib.Llama, Commit: lib.Commit, Compiler: lib.Compiler,
		Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH, CPU: cpuid.CPU.BrandName,
		Cores: cpuid.CPU.PhysicalCores, Threads: cpuid.CPU.LogicalCores, Features: []string{}, Kernels: lib.ISA,
	}
	for _, f := range features {
		if cpuid.CPU.Supports(f) {
			v.Features = append(v.Features, f.String())
		}
	}
	return v
}
