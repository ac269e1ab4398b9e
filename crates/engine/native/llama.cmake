# How cargo builds llama.cpp, where `llama-cpp-sys-2` gives no choice. CMake reads this as each of its projects begins
# (.cargo/config.toml).

if(PROJECT_NAME STREQUAL "llama.cpp")
  # Chat formats, command lines and an HTTP client: as much to compile as all the rest. `llama-cpp-2` asks for it whatever its
  # own features are; grammar.cpp brings what is used of it.
  set(LLAMA_BUILD_COMMON OFF)
  # What computes is ggml, which is optimised in every build.
  if("$ENV{OPT_LEVEL}" LESS 3)
    cmake_language(DEFER CALL target_compile_options llama PRIVATE -O1)
  endif()
endif()
