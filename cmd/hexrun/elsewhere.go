package main

import "strings"

// elsewhere says what to use instead of flags that llama.cpp's users type and a command of hexrun does not have.
var elsewhere = map[string]string{
	"hf": useDownload, "hf-repo": useDownload, "hff": useDownload, "hf-file": useDownload, "mu": useDownload, "model-url": useDownload,
	"cnv": useChat, "conversation": useChat, "i": useChat, "interactive": useChat,
	"no-cnv": "use hexrun run --raw to continue a text", "no-conversation": "use hexrun run --raw to continue a text",
	"mlock":      "hexrun does not lock the model in memory; leave it out, or use --no-mmap to read the model at once",
	"jinja":      "hexrun always applies the model's own template; leave it out",
	"flash-attn": noFlash, "fa": noFlash,
	"rpc":          "hexrun computes on this machine; use llama-server --rpc for workers",
	"lora":         "hexrun takes no adapters; use llama-server --lora, or merge it into the model",
	"prompt-cache": "hexrun chat keeps what it has read by itself; use llama-completion --prompt-cache for a file",
	"cache-prompt": "hexrun chat keeps what it has read by itself; leave it out",
	"hex":          useCaches, "cache-type-k": useCaches, "cache-type-v": useCaches, "ctk": useCaches, "ctv": useCaches,
	"f": useFile, "file": useFile,
	"sm": useSplit, "split-mode": useSplit, "ts": useSplit, "tensor-split": useSplit, "mg": useSplit, "main-gpu": useSplit, "dev": useSplit, "device": useSplit,
	"nkvo": noOffload, "no-kv-offload": noOffload,
	"presence-penalty": useSamplers, "frequency-penalty": useSamplers, "repeat-last-n": useSamplers, "top-nsigma": useSamplers, "top-n-sigma": useSamplers,
	"samplers": useSamplers, "sampler-seq": useSamplers, "sampling-seq": useSamplers, "typical": useSamplers, "typical-p": useSamplers,
	"dynatemp-range": useSamplers, "xtc-probability": useSamplers, "dry-multiplier": useSamplers, "mirostat": useSamplers,
	"threads-batch": "-t sets the threads of prompts and of replies; leave it out", "tb": "-t sets the threads of prompts and of replies; leave it out",
	"np": useSlots, "parallel": useSlots,
	"color": "hexrun prints no colours; leave it out", "co": "hexrun prints no colours; leave it out",
}

const (
	useDownload = "hexrun downloads nothing; download the GGUF file and name it with -m FILE.gguf"
	useChat     = "use hexrun chat to talk to the model"
	useCaches   = "caches to measure are named in a list, as in --caches f16,q8_0/q4_0,hex:tiny; hexrun info plans all presets"
	useFile     = "to give a file to the model, use hexrun run -f FILE, or /read FILE in hexrun chat"
	useSplit    = "hexrun splits layers over all GPUs by their free memory; choose GPUs by CUDA_VISIBLE_DEVICES, or use llama-server or llama-completion"
	noOffload   = "only hexrun run and hexrun chat take it; use -ngl 0 to measure without a GPU"
	useSamplers = "use --temp, --top-k, --top-p, --min-p or --repeat-penalty; llama-server and llama-completion have all samplers"
	useSlots    = "hexrun answers one at a time; use llama-server -np for several"
	noFlash     = "this command does not compute; leave it out"
)

// typed finds how the user wrote a flag whose name the parser gives without dashes.
func typed(args []string, name string) string {
	for _, arg := range args {
		flag, _, _ := strings.Cut(arg, "=")
		if bare := strings.TrimLeft(flag, "-"); bare != flag && (bare == name || strings.ReplaceAll(bare, "_", "-") == name) {
			return flag
		}
	}
	return dashed(name)
}
