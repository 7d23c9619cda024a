// How much memory is free.
#include "hexkv_impl.h"

#include <algorithm>
#include <cstdlib>

#if defined(__linux__) || defined(__APPLE__)
#    include <unistd.h>
#endif

namespace hexkv {

#if defined(__linux__)

namespace {

// The number at the start of a file, or after `key` in it; 0 when there is none.
uint64_t number_in(const std::string & path, const char * key = nullptr) {
    std::unique_ptr<FILE, int (*)(FILE *)> f(fopen(path.c_str(), "re"), fclose);
    char line[512];
    while (f && fgets(line, sizeof(line), f.get())) {
        if (!key) {
            return strtoull(line, nullptr, 10); // "max" gives 0: no limit
        }
        if (strncmp(line, key, strlen(key)) == 0) {
            return strtoull(line + strlen(key), nullptr, 10);
        }
    }
    return 0;
}

// Room below the memory limit of one control group; page cache counts as free, as it does in MemAvailable.
uint64_t group_room(const std::string & dir, const char * limit, const char * usage, const char * cache) {
    const uint64_t max  = number_in(dir + limit);
    const uint64_t used = number_in(dir + usage);
    if (max == 0 || used == 0) {
        return UINT64_MAX;
    }
    const uint64_t busy = used - std::min(used, number_in(dir + "/memory.stat", cache));
    return max - std::min(max, busy);
}

// The tightest of this process's control groups, from its own up to the root.
uint64_t groups_room() {
    std::unique_ptr<FILE, int (*)(FILE *)> f(fopen("/proc/self/cgroup", "re"), fclose);
    uint64_t room = UINT64_MAX;
    char     line[4096];
    while (f && fgets(line, sizeof(line), f.get())) {
        line[strcspn(line, "\n")] = 0;
        const char * path = strchr(line, ':') ? strchr(strchr(line, ':') + 1, ':') : nullptr;
        const bool   v2   = strncmp(line, "0::", 3) == 0;
        if (!path || (!v2 && !strstr(line, ":memory:"))) {
            continue;
        }
        const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
        for (std::string at = path + 1;;) {
            const std::string dir = root + (at == "/" ? "" : at);
            room = std::min(room, v2 ? group_room(dir, "/memory.max", "/memory.current", "inactive_file ")
                                     : group_room(dir, "/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file "));
            if (at.empty() || at == "/") {
                break;
            }
            at.erase(at.find_last_of('/'));
        }
    }
    return room;
}

} // namespace

uint64_t memory_available() {
    const uint64_t available = number_in("/proc/meminfo", "MemAvailable:") * 1024;
    return available ? std::min(available, groups_room()) : 0;
}

#elif defined(__APPLE__)

uint64_t memory_available() {
    const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(size) : 0;
}

#else

uint64_t memory_available() { return 0; }

#endif

std::string bytes_text(uint64_t n) {
    static const char * units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double x = static_cast<double>(n);
    int    u = 0;
    for (; x >= 1024 && u < 6; u++) {
        x /= 1024;
    }
    char text[32];
    snprintf(text, sizeof(text), u == 0 || x >= 100 ? "%.0f %s" : "%.1f %s", x, units[u]);
    return text;
}

} // namespace hexkv
