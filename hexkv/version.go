package hexkv

// VersionInfo describes the linked library.
type VersionInfo struct {
	Version  string // of hexkv
	Llama    string // version of the pinned llama.cpp
	Commit   string // its commit, when known
	Compiler string
	ISA      string // instruction set of the HEX kernels in use: "ref", "avx2", "avx512"; empty without HEX
	HEX      bool   // HEX caches are built in
}

// Version describes the linked library. Calls hexkv_version.
func Version() VersionInfo { panic("unimplemented") }

// LogLevel orders log lines.
type LogLevel int

const (
	LogDebug LogLevel = 1 + iota
	LogInfo
	LogWarn
	LogError
)

// SetLog sends llama.cpp's log lines of at least level min to fn, whole lines without the newline; nil drops them, which
// is the default. It is global. Any goroutine or thread may call fn, several at once. Calls hexkv_log_set.
func SetLog(min LogLevel, fn func(level LogLevel, line string)) { panic("unimplemented") }
